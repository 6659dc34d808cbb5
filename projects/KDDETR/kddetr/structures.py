"""The types and interfaces that all other files use; read this file first.

A detector encodes each image once. Its decoder then answers any number of object queries about the
encoded images. The detector's own queries, denoising queries and distillation points are three uses
of that one decoder.

Shape letters: B images, N queries, L decoder layers, K foreground classes, C embedding width.
"""

import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from .errors import UsageError
from .predictions import Predictions as Predictions
from .queries import Queries as Queries
from .renamed import explain_old_names


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


@runtime_checkable
class HasFeatureMaps(Protocol):
    """A detector that gives its feature maps, for losses that compare more than predictions."""

    def feature_maps(self, memory: Any) -> Mapping[str, Sequence[Tensor]]:
        """The maps by name, see :meth:`EncodedDetector.feature_maps`."""


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
    """A detector together with the images that it has encoded.

    Samplers get two of these, and the predictions that a loss gets have one each.

    Attributes:
        detector, memory: the detector, and what its ``encode`` returned.
        inputs: the images, with their ground truth where they are labelled, see
            :class:`QueryableDetector`; empty where they are not at hand.
    """

    detector: QueryableDetector
    memory: Any
    inputs: Sequence[dict[str, Any]] = ()

    def queries(self) -> Queries:
        """The detector's own queries."""
        return self.detector.queries(self.memory)

    def make_queries(self, boxes: Tensor) -> Queries:
        """Queries at (B, N, 4) boxes, or (1, N, 4); see :meth:`QueryableDetector.make_queries`."""
        return self.detector.make_queries(self.memory, boxes)

    def random_queries(self, images: int, count: int) -> Queries:
        """``count`` random queries; see :meth:`QueryableDetector.random_queries`."""
        return self.detector.random_queries(self.memory, images, count)

    def feature_maps(self, name: str) -> list[Tensor]:
        """Feature maps (B, C_l, H_l, W_l) of the images, fine to coarse.

        Args:
            name: "neck": what enters the encoder of a transformer, or the pyramid of an R-CNN,
                RetinaNet or FCOS. "encoder": what leaves the encoder of a transformer. In a padded
                batch the cells outside of an image are among them.

        Raises:
            UsageError: this detector does not give these maps.
        """
        maps: Mapping[str, Sequence[Tensor]] = {}
        if isinstance(self.detector, HasFeatureMaps):
            maps = self.detector.feature_maps(self.memory)
        if name not in maps:
            raise UsageError(
                f"A {type(self.detector).__name__} gives no feature maps {name!r}, only"
                f" {', '.join(map(repr, maps)) or 'none at all'}: name one of these, or remove the"
                " wrapper from around the detector that has them."
            )
        return list(maps[name])

    def forget(self) -> None:
        """Free the memory of what was kept to answer further queries faster, such as projections
        of the encoded image for every decoder layer; it is computed again where it is needed.
        """
        forget = getattr(self.memory, "forget", None)
        if forget is not None:
            forget()

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


class StepObserver(Protocol):
    """Sees a training step of :class:`kddetr.KDDETR` before its backward pass, changing nothing."""

    def __call__(
        self,
        losses: Mapping[str, Tensor],
        distilled: Mapping[str, Tensor],
        student: Predictions,
        teacher: Predictions,
        points: Queries,
    ) -> None:
        """Called once in a step, inside the forward pass.

        Args:
            losses: of the student's own task, weighted.
            distilled: of the distillation, weighted.
            student, teacher: their predictions at the points, with and without a gradient.
            points: the distillation points.
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
        layers that it compares, -1 for the last one. Then only their predictions are computed, see
        :func:`compared_layers`.

        ``student.encoded`` and ``teacher.encoded`` are the :class:`EncodedDetector` of each, with
        feature maps, further queries and the images.

        Args:
            student: predictions of all its layers, or of ``student_layers``, with a gradient.
            teacher: predictions of all its layers, or of ``teacher_layers``, without a gradient.
            points: the queries; ``points.groups`` says which of them belong together.
        """


Layers = tuple[int, ...] | None  # indices of decoder layers; None: all


def compared_layers(*losses: object) -> tuple[Layers, Layers]:
    """The layers of the student and those of the teacher that some losses compare.

    Args:
        losses: of the kind :class:`DistillationLoss`, at least one.

    Returns:
        the indices in ``student_layers`` and ``teacher_layers`` of the losses; None, all layers,
        where one of them does not say it or they do not agree.
    """

    def agreed(name: str) -> Layers:
        said = [getattr(loss, name, None) for loss in losses]
        found = {None if layers is None else tuple(layers) for layers in said}
        return found.pop() if len(found) == 1 else None

    return agreed("student_layers"), agreed("teacher_layers")


__getattr__ = explain_old_names(__name__)
