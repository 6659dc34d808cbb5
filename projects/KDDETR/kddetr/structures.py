"""The types and interfaces that all other files use; read this file first.

A detector encodes each image once. Its decoder then answers any number of object queries about the
encoded images. The detector's own queries, denoising queries and distillation points are three uses
of that one decoder.

Shape letters: B images, N queries, L decoder layers, K foreground classes, C embedding width.
"""

import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from .errors import UsageError
from .predictions import Predictions as Predictions
from .renamed import explain_old_names
from .transfer import to_device


@dataclass(frozen=True)
class Queries:
    """Object queries of a batch: a reference box each and, for some detectors, embeddings.

    Attributes:
        boxes: (B, N, 4) reference boxes ``cxcywh`` in the frame of each *unpadded* image, [0, 1];
            a box may reach beyond it. Or (B, N, 2), only the centre, where a query has no size yet
            (one-stage Deformable DETR).
        content: (B, N, C) content embedding that the decoder starts from; None: zeros.
        position: (B, N, C) positional embedding that comes with the query, learned (one-stage
            Deformable DETR) or computed once from its box (two-stage); None where the decoder
            computes it in every layer.
        groups: name and number of queries of consecutive groups, in order. Queries of different
            groups do not attend to one another. Empty: all queries are one group.
        attends_to: exceptions to that rule: a group's name and the other groups that it does attend
            to. A denoising group attends to the detector's own queries, but not the reverse.

    Raises:
        UsageError: the shapes do not go together, or the groups do not add up to N queries.
    """

    boxes: Tensor
    content: Tensor | None = None
    position: Tensor | None = None
    groups: Mapping[str, int] = field(default_factory=dict)
    attends_to: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.boxes.dim() != 3 or self.boxes.shape[-1] not in (2, 4):
            raise UsageError(
                f"Queries.boxes must be (B, N, 4) or (B, N, 2), not {tuple(self.boxes.shape)}."
            )
        for name in ("content", "position"):
            value = getattr(self, name)
            if value is not None and value.shape[:2] != self.boxes.shape[:2]:
                raise UsageError(
                    f"Queries.{name} has the shape {tuple(value.shape)} and boxes has the shape"
                    f" {tuple(self.boxes.shape)}: their first two sizes must be equal."
                )
        if self.groups and sum(self.groups.values()) != self.boxes.shape[1]:
            raise UsageError(
                f"Queries.groups {dict(self.groups)} add up to {sum(self.groups.values())} queries,"
                f" but there are {self.boxes.shape[1]}."
            )
        named = {*self.attends_to, *(n for names in self.attends_to.values() for n in names)}
        if unknown := named - self.groups.keys():
            raise UsageError(f"Queries.attends_to names {sorted(unknown)}, which are not groups.")

    def __len__(self) -> int:
        return self.boxes.shape[1]

    def named(self, name: str) -> "Queries":
        """The same queries as a single group with that name."""
        return replace(self, groups={name: len(self)}, attends_to={})

    def first(self, count: int | None) -> "Queries":
        """The first ``count`` queries as a single group; None, or a count above N, keeps all."""
        return replace(self, groups={}, attends_to={})._map(lambda t: t[:, :count])

    def boxes_only(self) -> "Queries":
        """The same queries without embeddings.

        Raises:
            UsageError: the queries have a centre but no size.
        """
        self.require_sizes()
        return replace(self, content=None, position=None)

    def require_sizes(self) -> None:
        """Check that the queries are boxes.

        Raises:
            UsageError: they have a centre but no size.
        """
        if self.boxes.shape[-1] != 4:
            raise UsageError(
                "These points have a centre but no size, like all queries of a one-stage Deformable"
                " DETR, and this detector needs boxes: take the points of a detector whose queries"
                " are boxes (DAB-DETR, DINO, two-stage Deformable DETR)."
            )

    def detach(self) -> "Queries":
        """The same queries without a gradient."""
        return self._map(Tensor.detach)

    def to(self, device: torch.device | str) -> "Queries":
        """The same queries on a device."""
        return self._map(lambda t: to_device(t, device))

    def select(self, images: Sequence[int]) -> "Queries":
        """The queries of the images with these indices."""
        return self._map(lambda t: torch.stack([t[i] for i in images]))

    def split(self) -> dict[str, "Queries"]:
        """The queries of each group, by its name; without groups, all of them under ``queries``."""
        parts, start = {}, 0
        ungrouped = replace(self, groups={}, attends_to={})
        for name, size in (self.groups or {"queries": len(self)}).items():
            part = ungrouped._map(lambda t, at=start, n=size: t.narrow(1, at, n))
            parts[name], start = part.named(name), start + size
        return parts

    def _map(self, function: Callable[..., Tensor]) -> "Queries":
        parts = {n: getattr(self, n) for n in ("boxes", "content", "position")}
        mapped: dict[str, Any] = {n: t if t is None else function(t) for n, t in parts.items()}
        return replace(self, **mapped)

    @staticmethod
    def join(parts: Sequence["Queries"]) -> "Queries":
        """One set of queries with the groups of all ``parts``, which do not attend to one another.

        Raises:
            UsageError: a part has no named group, two groups have the same name, or only some of
                the parts have content or positional embeddings.
        """
        groups: dict[str, int] = {}
        attends_to: dict[str, Sequence[str]] = {}
        for part in parts:
            if not part.groups or groups.keys() & part.groups.keys():
                raise UsageError(
                    "Queries can be joined when each part has groups with names of its own, and"
                    f" these have {[dict(p.groups) for p in parts]}: name them with"
                    " Queries.named()."
                )
            groups.update(part.groups)
            attends_to.update(part.attends_to)
        joined: dict[str, Any] = {}
        for name in ("boxes", "content", "position"):
            values = [getattr(part, name) for part in parts]
            if any(v is None for v in values) != all(v is None for v in values):
                raise UsageError(
                    f"Only some of the queries to join have a {name} embedding: give it to all."
                )
            joined[name] = None if values[0] is None else torch.cat(values, dim=1)
        return Queries(**joined, groups=groups, attends_to=attends_to)


@runtime_checkable
class QueryableDetector(Protocol):
    """A detector that encodes images once and decodes any queries about them, like a teacher.

    ``inputs`` is Detectron2's list of dicts: ``image`` (uint8, 3 x H x W, RGB, 0 to 255) and, where
    ground truth is known, ``instances``. An image without the key ``instances`` is unlabelled and
    takes no part in a ground-truth loss; an image with zero instances is labelled as background.

    Only the detector itself looks inside the memory that its ``encode`` returns.
    """

    num_classes: int
    # The learned embeddings, "content" or "position", that the queries have beside their boxes, and
    # the width of each. Empty: whatever the queries carry beside boxes is computed from the boxes.
    query_parts: Mapping[str, int]

    def encode(self, inputs: list[dict[str, Any]]) -> Any:
        """Everything that is computed once per image: the memory."""

    def queries(self, memory: Any) -> Queries:
        """The detector's own queries: learned anchors, or two-stage or RPN proposals."""

    def make_queries(self, memory: Any, boxes: Tensor) -> Queries:
        """Queries of this detector's kind at the given boxes.

        Args:
            memory: of B images.
            boxes: (B, N, 4) ``cxcywh`` in [0, 1], or (1, N, 4) for one set that all images share.

        Raises:
            UsageError: the queries of this detector are not made of boxes.
        """

    def random_queries(self, memory: Any, images: int, count: int) -> Queries:
        """Queries with random embeddings, distributed as in a freshly initialised detector.

        The reference of each query is the one that this detector computes for it.

        Args:
            memory: of B images.
            images: B, or 1 for one set that all images share.
            count: N.

        Raises:
            UsageError: the queries of this detector are made of boxes: use :meth:`make_queries`.
        """

    def decode(self, memory: Any, queries: Queries) -> Predictions:
        """The predictions at these queries, (L, B, N, ...).

        It may have an optional argument ``layers`` to save work, see :class:`EncodedDetector`.
        """


def queries_are_boxes(detector: QueryableDetector) -> bool:
    """Whether queries are made of boxes (:meth:`~QueryableDetector.make_queries`)."""
    return "position" not in detector.query_parts


@runtime_checkable
class Detector(QueryableDetector, Protocol):
    """A :class:`QueryableDetector` that can be trained and can take another detector's queries."""

    @property
    def device(self) -> torch.device:
        """Where its weights are."""

    def __call__(self, inputs: list[dict[str, Any]]) -> dict[str, Tensor] | list[dict[str, Any]]:
        """Losses by name in training; otherwise a dict with ``instances`` for each image."""

    def convert_queries(self, memory: Any, points: Queries) -> Queries:
        """Another detector's queries as queries of this detector's kind, in the same groups.

        Boxes stay as they are. A learned content embedding is kept where this kind of query has one
        too; what is computed from the box is computed by this detector itself.

        Raises:
            UsageError: these queries cannot be converted; the message says which detectors fit.
        """

    def losses(self, memory: Any, inputs: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Weighted ground-truth losses of the labelled images, scalars by name."""


@dataclass(frozen=True)
class EncodedDetector:
    """A detector together with the images that it has encoded; samplers get two of these."""

    detector: QueryableDetector
    memory: Any

    def queries(self) -> Queries:
        """The detector's own queries."""
        return self.detector.queries(self.memory)

    def make_queries(self, boxes: Tensor) -> Queries:
        """Queries at (B, N, 4) boxes, or (1, N, 4); see :meth:`QueryableDetector.make_queries`."""
        return self.detector.make_queries(self.memory, boxes)

    def random_queries(self, images: int, count: int) -> Queries:
        """``count`` random queries; see :meth:`QueryableDetector.random_queries`."""
        return self.detector.random_queries(self.memory, images, count)

    def fresh_queries(self, boxes: Tensor) -> Queries:
        """Former name of :meth:`make_queries`, kept for samplers that were written for it."""
        warnings.warn("fresh_queries is now called make_queries.", FutureWarning, stacklevel=2)
        return self.make_queries(boxes)

    def decode(self, queries: Queries, *, layers: Sequence[int] | None = None) -> Predictions:
        """The predictions at these queries, (L, B, N, ...).

        Args:
            queries: of the detector's kind.
            layers: indices of the decoder layers whose predictions are wanted, -1 for the last one;
                None: all. A detector whose ``decode`` has this argument too computes only these;
                of another detector's predictions they are taken.

        Raises:
            UsageError: the detector has fewer layers.
        """
        decode: Callable[..., Predictions] = self.detector.decode
        if layers is None or "layers" not in inspect.signature(decode).parameters:
            return decode(self.memory, queries).of_layers(layers)
        return decode(self.memory, queries, layers=layers)


class PointSampler(Protocol):
    """Chooses the distillation points: the queries that both detectors decode."""

    def __call__(self, teacher: EncodedDetector, student: EncodedDetector) -> Queries:
        """Named groups of queries of the *teacher's* kind, (B, N, ...), without a gradient."""


class QueryPlacement(Protocol):
    """Chooses the queries of the student, where they are not the points themselves."""

    def __call__(self, points: Queries, answers: Predictions) -> Queries:
        """Queries for the student, in the groups of the points, without a gradient.

        They are (B, N, 4) boxes without embeddings, because an embedding that the teacher learned
        for one box does not belong to another.

        Args:
            points: the queries that the teacher was asked.
            answers: the teacher's predictions there.
        """


class DistillationLoss(Protocol):
    """Compares the student's predictions with the teacher's at the same points."""

    def __call__(
        self, student: Predictions, teacher: Predictions, points: Queries
    ) -> dict[str, Tensor]:
        """Weighted scalar losses by name, with a gradient; docs/your_own.md says how to log others.

        The part of a name before a "/" is the group that the log sums it up under; a name without a
        "/" is put into the group ``kd``.

        A loss may have attributes ``student_layers`` and ``teacher_layers``: indices of the decoder
        layers that it compares, -1 for the last one. Then only their predictions are computed.

        Args:
            student: predictions of all its layers, or of ``student_layers``, with a gradient.
            teacher: predictions of all its layers, or of ``teacher_layers``, without a gradient.
            points: the queries; ``points.groups`` says which of them belong together.
        """


__getattr__ = explain_old_names(__name__)
