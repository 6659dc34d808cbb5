"""The vocabulary of the project: read this first.

A detector encodes an image once and can then be asked, as often as one likes, what it sees at given
queries. Its own queries, denoising queries and distillation points are three uses of one decoder.

Shape letters: B images, N queries, L decoder layers, K foreground classes, C model width.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor


@dataclass(frozen=True)
class Queries:
    """Questions to a decoder: where to look and, where the family has it, with what in mind.

    Attributes:
        boxes: (B, N, 4) ``cxcywh`` in [0, 1] of each *unpadded* image, the one shared frame; or
            (B, N, 2), the centre alone, where a query has a place but no size yet (the first
            layer of Deformable DETR).
        content: (B, N, C) embedding the decoder starts from; None: it starts from zero.
        position: (B, N, C) positional embedding that goes with the query, where it is learned and
            not computed from the box (one-stage Deformable DETR); None otherwise.
        groups: name to number of queries, in order, of consecutive groups that must not see one
            another in self-attention; empty: all queries are one group.
        sees: exceptions to that, group to the other groups it may look at all the same: a
            denoising group sees the detector's own queries, which do not see it.
    """

    boxes: Tensor
    content: Tensor | None = None
    position: Tensor | None = None
    groups: Mapping[str, int] = field(default_factory=dict)
    sees: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.boxes.dim() != 3 or self.boxes.shape[-1] not in (2, 4):
            raise ValueError(
                f"Queries.boxes must be (B, N, 4) or (B, N, 2), not {tuple(self.boxes.shape)}."
            )
        for name in ("content", "position"):
            value = getattr(self, name)
            if value is not None and value.shape[:2] != self.boxes.shape[:2]:
                raise ValueError(
                    f"Queries.{name} of shape {tuple(value.shape)} does not go with boxes of shape "
                    f"{tuple(self.boxes.shape)}: the first two sizes must agree."
                )
        if self.groups and sum(self.groups.values()) != self.boxes.shape[1]:
            raise ValueError(
                f"Queries.groups {dict(self.groups)} do not sum to {self.boxes.shape[1]} queries."
            )
        unknown = {*self.sees, *(n for names in self.sees.values() for n in names)}
        if unknown := unknown - self.groups.keys():
            raise ValueError(f"Queries.sees names {sorted(unknown)}, which are no groups.")

    def __len__(self) -> int:
        return self.boxes.shape[1]

    def named(self, name: str) -> "Queries":
        """The same queries as one group of that name."""
        return replace(self, groups={name: len(self)}, sees={})

    def first(self, count: int | None) -> "Queries":
        """The first of them as one group; None, or more than there are: all."""
        return replace(self, groups={}, sees={})._map(lambda t: t[:, :count])

    def hidden(self) -> Tensor | None:
        """(N, N) bool, True where the query of the row may not look at that of the column.

        None where the groups alone say it: no group sees another one.
        """
        if not self.sees:
            return None
        names = list(self.groups)
        blind = torch.ones(len(names), len(names), dtype=torch.bool)
        for i, name in enumerate(names):
            for other in (name, *self.sees.get(name, ())):
                blind[i, names.index(other)] = False
        group = torch.arange(len(names)).repeat_interleave(torch.tensor(list(self.groups.values())))
        blind, group = (t.to(self.boxes.device) for t in (blind, group))
        return blind[group][:, group]

    def detach(self) -> "Queries":
        """The same queries, cut from the graph that made them."""
        return self._map(Tensor.detach)

    def select(self, images: Sequence[int]) -> "Queries":
        """The queries of the images with those indices."""
        return self._map(lambda t: t[list(images)])

    def _map(self, function) -> "Queries":
        parts = {n: getattr(self, n) for n in ("boxes", "content", "position")}
        return replace(self, **{n: t if t is None else function(t) for n, t in parts.items()})

    @staticmethod
    def join(parts: Sequence["Queries"]) -> "Queries":
        """One set of queries whose groups are those of ``parts`` and stay blind to one another.

        Raises:
            ValueError: a part is not a named group, two carry one name, or the parts are made of
                different things (one has content, another has none).
        """
        groups: dict[str, int] = {}
        sees: dict[str, Sequence[str]] = {}
        for part in parts:
            if not part.groups or groups.keys() & part.groups.keys():
                raise ValueError(
                    "Queries to join need distinct group names, got"
                    f" {[dict(p.groups) for p in parts]}: name them with Queries.named()."
                )
            groups.update(part.groups)
            sees.update(part.sees)
        joined = {}
        for name in ("boxes", "content", "position"):
            values = [getattr(part, name) for part in parts]
            if any(v is None for v in values) != all(v is None for v in values):
                raise ValueError(f"Only some of the queries to join have a {name}: give it to all.")
            joined[name] = None if values[0] is None else torch.cat(values, dim=1)
        return Queries(**joined, groups=groups, sees=sees)


@dataclass(frozen=True)
class Predictions:
    """What a detector sees at its queries, after every decoder layer.

    Attributes:
        logits: (L, B, N, K) foreground classes, before the sigmoid (L = 1 for an R-CNN).
        boxes: (L, B, N, 4) ``cxcywh`` in the same frame as ``Queries.boxes``; of a detector with a
            box for every class, that of the class it holds for the likeliest.
        class_boxes: (L, B, N, K, 4) those of all classes, where there is one for every class.
    """

    logits: Tensor
    boxes: Tensor
    class_boxes: Tensor | None = None

    @property
    def num_layers(self) -> int:
        return self.logits.shape[0]

    def last(self) -> "Predictions":
        """The final layer alone, still with its leading axis (L = 1)."""
        return self._map(lambda t: t[-1:])

    def detach(self) -> "Predictions":
        """The same answers, cut from the graph that made them."""
        return self._map(Tensor.detach)

    def split(self, groups: Mapping[str, int]) -> dict[str, "Predictions"]:
        """The answers of each group of queries, by name."""
        parts, start = {}, 0
        for name, size in groups.items():
            parts[name] = self._map(lambda t, at=start, n=size: t.narrow(2, at, n))
            start += size
        return parts

    def of_classes(self, classes: Tensor) -> "Predictions":
        """The same answers with the boxes of those classes, where there is a choice.

        Args:
            classes: (B, N), or (L, B, N), in [0, K).
        """
        if self.class_boxes is None:
            return self
        index = classes.expand(self.logits.shape[:3])[..., None, None].expand(-1, -1, -1, 1, 4)
        boxes = self.class_boxes.gather(3, index)[:, :, :, 0]
        return Predictions(self.logits, boxes, self.class_boxes)

    def _map(self, function) -> "Predictions":
        parts = (self.logits, self.boxes, self.class_boxes)
        return Predictions(*(t if t is None else function(t) for t in parts))


class UsageError(ValueError):
    """Parts that do not go together; the message is one sentence that says what to do."""


@runtime_checkable
class Answerer(Protocol):
    """Anything that encodes images once and then answers queries about them.

    ``inputs`` is Detectron2's list of dicts: ``image`` (uint8, 3 x H x W, RGB, 0 to 255) and, where
    ground truth is known, ``instances``. An image *without* ``instances`` is unlabelled and takes
    no part in a ground-truth loss; one with zero instances is labelled background.

    A memory is opaque to everybody but the detector that made it.
    """

    num_classes: int
    # Width of each learned part, "content" or "position", that its queries have beside their boxes.
    query_parts: Mapping[str, int]

    def encode(self, inputs: list[dict[str, Any]]) -> Any:
        """Everything that is computed once per image, whoever asks."""

    def queries(self, memory: Any) -> Queries:
        """The detector's own queries: learned anchors, two-stage or RPN proposals."""

    def fresh_queries(self, memory: Any, boxes: Tensor) -> Queries:
        """Queries of this detector's kind that nobody learned, at ``boxes``.

        ``boxes`` is (B, N, 4), or (1, N, 4) for one set that all images share. A family whose
        queries are not made of boxes draws them like a freshly initialised table.
        """

    def decode(self, memory: Any, queries: Queries) -> Predictions:
        """What do you see at these queries?"""


@runtime_checkable
class Detector(Answerer, Protocol):
    """An :class:`Answerer` that can also be trained, and asked another detector's queries."""

    def adopt(self, memory: Any, points: Queries) -> Queries:
        """The same questions as queries of this detector's kind, in the same groups.

        Boxes carry over as they are. Learned content carries over where this kind has content too;
        what is computed from the box, each detector computes by its own path.

        Raises:
            UsageError: such queries cannot be asked here; the message says which detector could.
        """

    def losses(self, memory: Any, inputs: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Weighted ground-truth losses, scalars by name, of the labelled images."""


@dataclass(frozen=True)
class Encoded:
    """A detector beside what it has encoded: somebody who can be asked about these images."""

    detector: Answerer
    memory: Any

    def queries(self) -> Queries:
        """The detector's own."""
        return self.detector.queries(self.memory)

    def fresh_queries(self, boxes: Tensor) -> Queries:
        """Queries of its kind at (B, N, 4) boxes, or (1, N, 4) that all images share."""
        return self.detector.fresh_queries(self.memory, boxes)

    def queries_at(self, boxes: Tensor) -> Queries:
        """:meth:`fresh_queries` for boxes that mean a place.

        Raises:
            UsageError: the detector does not make its queries of boxes.
        """
        if "position" in self.detector.query_parts:
            raise UsageError(
                "A one-stage Deformable DETR makes its queries of learned embeddings and cannot be"
                " asked at a box: take general and specific points, or another teacher."
            )
        return self.fresh_queries(boxes)

    def decode(self, queries: Queries) -> Predictions:
        """What it sees at them."""
        return self.detector.decode(self.memory, queries)


class PointSampler(Protocol):
    """Chooses the distillation points: queries that are asked of both detectors."""

    def __call__(self, teacher: Encoded, student: Encoded) -> Queries:
        """Named groups of the *teacher's* kind of queries, (B, N, ...), without a graph."""


class Placement(Protocol):
    """Says where the student is asked, where that is not at the points themselves."""

    def __call__(self, points: Queries, answers: Predictions) -> Queries:
        """Queries in the points' groups, (B, N, 4) boxes alone, without a graph: what a teacher has
        learned to go with a box does not go with another one.

        Args:
            points: what the teacher was asked.
            answers: what it said.
        """
