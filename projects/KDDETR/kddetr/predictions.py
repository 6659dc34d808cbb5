"""What a detector predicts at queries.

Shape letters: B images, N queries, L decoder layers, K foreground classes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from .errors import UsageError
from .transfer import to_device

TENSORS = ("logits", "boxes", "class_boxes", "answered")  # of predictions
LAST = (-1,)  # the index of the last layer alone, for the argument ``layers`` of a decode


@dataclass(frozen=True)
class Predictions:
    """What a detector predicts at each query, after every decoder layer.

    Attributes:
        logits: (L, B, N, K) logits of the foreground classes, before the sigmoid. L = 1 for an
            R-CNN.
        boxes: (L, B, N, 4) ``cxcywh`` in the frame of ``Queries.boxes``. Where the detector
            predicts a box for every class, this is the box of the most likely class.
        class_boxes: (L, B, N, K, 4) the boxes of all classes, where there is one for every class.
        layers: the indices by which these L layers were chosen among the detector's; None: they are
            all of its layers.
        answered: (L, B, N) whether a query counts in a loss; None: all do, as of every live
            detector. A recorded teacher has queries that do not where an image has fewer answers
            than others.
        classes: (k,) indices of the classes that the k <= K columns of ``logits`` are for, where a
            teacher does not know all of the student's; None: there is a column for every class.
        encoded: the :class:`~kddetr.structures.EncodedDetector` that predicts, with the images, for
            losses that need more than predictions; the distiller sets it, elsewhere it is None,
            also of predictions about chosen images.
    """

    logits: Tensor
    boxes: Tensor
    class_boxes: Tensor | None = None
    layers: tuple[int, ...] | None = None
    answered: Tensor | None = None
    classes: Tensor | None = None
    encoded: Any = field(default=None, repr=False, compare=False)

    @property
    def num_layers(self) -> int:
        """L."""
        return self.logits.shape[0]

    def last(self) -> "Predictions":
        """The predictions of the last layer, with the layer axis kept (L = 1)."""
        layers = LAST if self.layers is None else self.layers[-1:]
        return replace(self._map(lambda t: t[-1:]), layers=layers)

    def of_layers(self, layers: Sequence[int] | None) -> "Predictions":
        """The predictions of some decoder layers; those that have been chosen already stay.

        Args:
            layers: indices of the layers, -1 for the last one; None: the same predictions.

        Raises:
            UsageError: see :func:`layer_numbers`, or other layers have been chosen before.
        """
        if layers is None or tuple(layers) == self.layers:
            return self
        if self.layers is not None:
            raise UsageError(
                f"The layers {list(layers)} are wanted of predictions of the layers"
                f" {list(self.layers)}: decode the queries again, with these layers."
            )
        numbers = layer_numbers(layers, self.num_layers)
        chosen = self._map(lambda t: torch.stack([t[i] for i in numbers]))
        return replace(chosen, layers=tuple(layers))

    def detach(self) -> "Predictions":
        """The same predictions without a gradient."""
        return self._map(Tensor.detach)

    def to(self, device: torch.device | str) -> "Predictions":
        """The same predictions on a device."""
        return self._map(lambda t: to_device(t, device))

    @staticmethod
    def cat(parts: Sequence["Predictions"], dim: int) -> "Predictions":
        """The predictions of several parts, joined along their dimension of images or queries.

        Args:
            parts: predictions of the same layers.
            dim: 1 for images, 2 for queries.
        """
        joined: dict[str, Any] = {}
        for name in TENSORS:
            values = [t for p in parts if (t := getattr(p, name)) is not None]
            joined[name] = torch.cat(values, dim) if values else None
        return replace(parts[0], **joined)

    def split(self, groups: Mapping[str, int]) -> dict[str, "Predictions"]:
        """The predictions of each query group, by the group's name."""
        parts, start = {}, 0
        for name, size in groups.items():
            parts[name] = self._map(lambda t, at=start, n=size: t.narrow(2, at, n))
            start += size
        return parts

    def of_images(self, images: Sequence[int]) -> "Predictions":
        """The predictions about the images with these indices, in this order, without ``encoded``:
        only the detector itself could choose images of its memory.
        """
        chosen = self._map(lambda t: torch.stack([t[:, i] for i in images], dim=1))
        return replace(chosen, encoded=None)

    def of_queries(self, queries: Tensor) -> "Predictions":
        """The predictions at some queries of each image.

        Args:
            queries: (B, P) indices in [0, N).

        Returns:
            (L, B, P, ...) predictions, in this order.
        """

        def gathered(values: Tensor) -> Tensor:
            index = queries.view(1, *queries.shape, *[1] * (values.dim() - 3))
            return values.gather(2, index.expand(len(values), -1, -1, *values.shape[3:]))

        return self._map(gathered)

    def of_classes(self, classes: Tensor) -> "Predictions":
        """The same predictions with the boxes of the given classes, where there is one per class.

        Args:
            classes: (B, N) or (L, B, N) class indices in [0, K).
        """
        if self.class_boxes is None:
            return self
        index = classes.expand(self.logits.shape[:3])[..., None, None].expand(-1, -1, -1, 1, 4)
        boxes = self.class_boxes.gather(3, index)[:, :, :, 0]
        return replace(self, boxes=boxes)

    def with_classes(self, classes: Tensor | None) -> "Predictions":
        """The predictions for some classes only, to be compared with a teacher that knows these.

        Args:
            classes: (k,) indices in [0, K); None: all, the same predictions.
        """
        if classes is None:
            return self
        logits = self.logits.index_select(-1, classes)
        if self.class_boxes is None:
            return replace(self, logits=logits, classes=classes)
        boxes = self.class_boxes.index_select(-2, classes)
        chosen = replace(self, logits=logits, class_boxes=boxes, classes=classes)
        return chosen.of_classes(logits.argmax(-1))

    def _map(self, function: Callable[..., Tensor]) -> "Predictions":
        tensors = {n: t for n in TENSORS if (t := getattr(self, n)) is not None}
        mapped: dict[str, Any] = {n: function(t) for n, t in tensors.items()}
        return replace(self, **mapped)


def layer_numbers(layers: Sequence[int] | None, count: int) -> list[int]:
    """The numbers of decoder layers, counted from 0, for their indices.

    Args:
        layers: indices, -1 for the last layer; None: all layers.
        count: the number of layers L that there are.

    Raises:
        UsageError: there is no such layer, or a layer is named twice or not at all.
    """
    if layers is None:
        return list(range(count))
    numbers = [i + count if i < 0 else i for i in layers]
    if not numbers or len(set(numbers)) < len(numbers) or not set(numbers) <= set(range(count)):
        raise UsageError(
            f"The layers {list(layers)} are wanted of a detector with {count}: name at least one,"
            f" each once, by its index from 0 to {count - 1} or, counted from the last one, from"
            f" {-count} to -1."
        )
    return numbers
