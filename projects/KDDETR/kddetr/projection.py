"""The projection between the learned query embeddings of two detectors of different widths."""

from dataclasses import replace

from torch import nn

from .structures import Detector, Queries, QueryableDetector


class ContentProjection(nn.ModuleDict):
    """Linear layers that project the learned embeddings of a teacher's queries to a student's
    width.
    """

    @classmethod
    def between(cls, teacher: QueryableDetector, student: Detector) -> "ContentProjection | None":
        """The projection between the two widths; None where none is needed: equal widths, or a
        detector that learns nothing beside boxes.
        """
        theirs, ours = teacher.query_parts, student.query_parts
        different = [n for n in theirs if n in ours and theirs[n] != ours[n]]
        return cls({n: nn.Linear(theirs[n], ours[n]) for n in different}) if different else None

    def forward(self, points: Queries) -> Queries:
        """The same points with embeddings of the student's width, where they have embeddings."""
        parts = {name: getattr(points, name) for name in self}
        projected = {n: self[n](part) for n, part in parts.items() if part is not None}
        return replace(points, **projected)
