"""What the wrapped models of Detectron2 have in common; their queries are boxes only."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from detectron2.structures import Instances
from torch import Tensor, nn

from ...boxes import xyxy_to_cxcywh
from ...errors import UsageError
from ...ranges import whole
from ...structures import Queries
from ...transfer import numbers
from ..batch import MADE_OF_BOXES, BatchMemory, for_all_images, losses_of_labelled_images
from ..inputs import check_inputs, check_precision, check_truth


class StockDetector(nn.Module):
    """A model of Detectron2 as a detector of this project.

    It takes RGB images, like all detectors here, and brings their channels into the order that
    ``stock`` takes. It has no weights of its own: the weights of ``stock`` are trained, saved and
    loaded. A subclass implements ``encode``, ``queries`` (the model's best boxes, before detections
    are selected) and ``decode`` of :class:`~kddetr.structures.Detector`, :meth:`check_stock` and
    :meth:`stock_losses`.

    Its memory is a :class:`BatchMemory` with the attribute ``images``, an ImageList whose
    ``image_sizes`` are the (h, w) of the unpadded images.

    Args:
        stock: the model.
        num_queries: the number of the model's best boxes that are the detector's own queries, at
            least 1.
        input_format: "RGB" or "BGR", the order of the channels that ``stock`` takes; None: the
            value of its attribute ``input_format``.

    Raises:
        ValueError: ``num_queries`` is out of range.
        UsageError: the model is of another kind, see :meth:`check_stock`, or the order of the
            channels is not known.
    """

    query_parts: Mapping[str, int] = {}

    def __init__(
        self, stock: nn.Module, *, num_queries: int = 300, input_format: str | None = None
    ) -> None:
        self.check_stock(stock)
        super().__init__()
        whole(1, num_queries=num_queries)
        self.stock = stock
        self.num_queries = num_queries
        order = input_format or getattr(stock, "input_format", None)
        if order not in ("RGB", "BGR"):
            raise UsageError(
                f"The order of the channels that a {type(stock).__name__} takes is not known"
                f" ({order!r}): set input_format to RGB or BGR."
            )
        self.takes_bgr = order == "BGR"

    @property
    def num_classes(self) -> int:
        """K."""
        return self.stock.num_classes

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.stock.pixel_mean.device

    @staticmethod
    def check_stock(stock: nn.Module) -> None:
        """Raise a UsageError where the model is not of the kind that the class wraps."""
        raise NotImplementedError

    def stock_losses(
        self, memory: BatchMemory, inputs: list[dict[str, Any]], truth: list[Instances]
    ) -> dict[str, Tensor]:
        """The losses that the model itself computes for labelled images, whose ground truth is on
        the model's device.
        """
        raise NotImplementedError

    def compile(self, *args: Any, **options: Any) -> None:
        """Compile the backbone in place, with the arguments of :func:`torch.compile`. The heads of
        these models handle as many boxes as there are, so they would be compiled over and over.
        """
        self.stock.backbone.compile(*args, **options)

    def forward(self, inputs: list[dict[str, Any]]) -> dict[str, Tensor] | list[dict[str, Any]]:
        """Detectron2's contract: losses in training, ``[{"instances": ...}]`` otherwise."""
        if self.training:
            return self.losses(self.encode(inputs), inputs)
        return self.stock(self.in_stock_format(inputs))

    def make_queries(self, memory: BatchMemory, boxes: Tensor) -> Queries:
        """Queries without embeddings at (B, N, 4) boxes, or at (1, N, 4) for all images."""
        return Queries(for_all_images(boxes, len(memory), self.device))

    def random_queries(self, memory: BatchMemory, images: int, count: int) -> Queries:
        """Refused by a UsageError: the queries are boxes, without embeddings to draw."""
        raise UsageError(MADE_OF_BOXES)

    def convert_queries(self, memory: BatchMemory, points: Queries) -> Queries:
        """The boxes of the points, without their embeddings."""
        return points.boxes_only()

    def losses(self, memory: BatchMemory, inputs: list[dict[str, Any]]) -> dict[str, Tensor]:
        """The model's own losses of the labelled images, all 0 where no image has labels.

        Raises:
            UsageError: the ground truth does not fit the model, see :meth:`check_truth`.
        """
        return losses_of_labelled_images(memory, inputs, self._losses)

    def count_normalisers(self, inputs: list[dict[str, Any]]) -> None:
        """Nothing: the models of Detectron2 divide their losses themselves, so of a batch in parts
        the losses of the parts are averaged.
        """

    def _losses(self, memory: BatchMemory, inputs: list[dict[str, Any]]) -> dict[str, Tensor]:
        for x in inputs:
            self.check_truth(x)  # on the CPU, where reading a class costs no waiting
        truth = [x["instances"].to(self.device) for x in inputs]
        return self.stock_losses(memory, inputs, truth)

    def check_truth(self, x: dict[str, Any]) -> None:
        """Raise a UsageError where the ground truth of an image does not fit the model."""
        check_truth(x, self.num_classes)

    def in_stock_format(self, inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """RGB images with their channels in the order that the model takes.

        Raises:
            UsageError: the batch is none, see :mod:`kddetr.detectors.inputs`.
        """
        check_precision(self.stock.pixel_mean)
        check_inputs(inputs)
        images = [x["image"].flip(0) if self.takes_bgr else x["image"] for x in inputs]
        # Detectron2 subtracts its float32 mean, which leaves an image in float64 as it is.
        images = [y if y.dtype == torch.uint8 else y.float() for y in images]
        return [x | {"image": image} for x, image in zip(inputs, images, strict=True)]


def check_forward(stock: nn.Module, base: type[nn.Module], instead: str) -> None:
    """Raise a UsageError where a model does not train by the ``forward`` of its base class in
    Detectron2, which this wraps. ``instead`` names the models to take in the message.
    """
    if type(stock).forward is not base.forward:
        raise UsageError(
            f"A {type(stock).__name__} has a training forward of its own, which this wrapper would"
            f" not run: take {instead} whose forward is Detectron2's."
        )


def box_queries(boxes: Sequence[Tensor], sizes: Sequence[tuple[int, int]]) -> Queries:
    """Queries at (n, 4) boxes ``xyxy`` in pixels of each image (h, w), without a gradient.

    N is the largest n and at least 1. An image with fewer boxes gets the box of the whole image for
    the rest.
    """
    count = max(1, *map(len, boxes))
    padded = torch.tensor([0.5, 0.5, 1.0, 1.0], device=boxes[0].device)
    padded = padded.repeat(len(boxes), count, 1)
    for i, (corners, (height, width)) in enumerate(zip(boxes, sizes, strict=True)):
        corners = corners.detach().float()
        corners = corners / corners.new_tensor([width, height, width, height])
        padded[i, : len(corners)] = xyxy_to_cxcywh(corners)
    return Queries(padded)


def finite(boxes: Tensor) -> Tensor:
    """The boxes in float32, without a gradient; a UsageError where a number is not finite."""
    boxes = boxes.detach().float()
    if not torch.isfinite(boxes).all():
        raise UsageError(
            "The box of a query is not finite: check the sampler that made the query, and the"
            " weights of the detector whose boxes the sampler takes."
        )
    return boxes


def box_scale(sizes: Sequence[tuple[int, int]], like: Tensor) -> Tensor:
    """(B, 1, 4) factors w, h, w, h from boxes in [0, 1] to pixels of images (h, w)."""
    return numbers([[[w, h, w, h]] for h, w in sizes], like.device, like.dtype)
