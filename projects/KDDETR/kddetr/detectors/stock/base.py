"""What all models of Detectron2 share that are asked queries: a stock model, left as it is, and
around it the ways of this project. Their queries are boxes and nothing else.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn

from ...boxes import xyxy_to_cxcywh
from ...errors import UsageError
from ...structures import Predictions, Queries
from ..inputs import check_classes, check_images


class StockDetector(nn.Module):
    """A model of Detectron2 as a detector of this project.

    It takes RGB images, like all detectors here, and turns them into what ``stock`` was made for.
    It has no weights of its own: those of ``stock`` are what is trained, saved and loaded. A kind
    says how it encodes, proposes and answers, and computes its losses of images with labels.

    A memory has ``images``, an ImageList whose ``image_sizes`` are (h, w) without the padding, and
    ``select(images)``, the memory of some of them, itself where these are all.

    Args:
        stock: the model.
        num_queries: how many of its best boxes are its own queries.
        input_format: "RGB" or "BGR", the order of the channels that ``stock`` takes; None: what its
            attribute ``input_format`` says.

    Raises:
        UsageError: the order of the channels is not known.
    """

    query_parts: Mapping[str, int] = {}

    def __init__(self, stock: nn.Module, *, num_queries: int, input_format: str | None) -> None:
        super().__init__()
        self.stock = stock
        self.num_queries = num_queries
        self.flip = _is_bgr(stock, input_format)

    @property
    def num_classes(self) -> int:
        return self.stock.num_classes

    @property
    def device(self) -> torch.device:
        return self.stock.pixel_mean.device

    def encode(self, inputs: list[dict[str, Any]]) -> Any:
        """Everything that is computed once per image."""
        raise NotImplementedError

    def queries(self, memory: Any) -> Queries:
        """The boxes of its own that it holds for the best."""
        raise NotImplementedError

    def decode(self, memory: Any, queries: Queries) -> Predictions:
        """What it sees at the queries' boxes."""
        raise NotImplementedError

    def own_losses(
        self, memory: Any, inputs: list[dict[str, Any]], truth: list[Instances]
    ) -> dict[str, Tensor]:
        """The stock model's losses; memory, inputs and truth are of the same images."""
        raise NotImplementedError

    def forward(self, inputs: list[dict[str, Any]]) -> dict[str, Tensor] | list[dict[str, Any]]:
        """Detectron2's contract: losses in training, ``[{"instances": ...}]`` otherwise."""
        if self.training:
            return self.losses(self.encode(inputs), inputs)
        return self.stock(self.in_own_order(inputs))

    def make_queries(self, memory: Any, boxes: Tensor) -> Queries:
        """(B, N, 4) boxes, or (1, N, 4) that all images share, as queries without embeddings."""
        return Queries(boxes.to(self.device).expand(len(memory.images.image_sizes), -1, -1))

    def convert_queries(self, memory: Any, points: Queries) -> Queries:
        """The boxes of the points, without their embeddings."""
        return points.boxes_only()

    def losses(self, memory: Any, inputs: list[dict[str, Any]]) -> dict[str, Tensor]:
        """The model's own losses of the labelled images, all 0 when no image has labels.

        They are there even then: with several processes each must give every parameter a gradient.

        Raises:
            UsageError: the ground truth does not go with the model, see :meth:`check_truth`.
        """
        labelled = [i for i, x in enumerate(inputs) if "instances" in x]
        for i in labelled:
            self.check_truth(inputs[i]["instances"])  # before the device has to be waited for
        truth = [inputs[i]["instances"].to(self.device) for i in labelled]
        if labelled:
            return self.own_losses(memory.select(labelled), [inputs[i] for i in labelled], truth)
        nothing = Instances(memory.images.image_sizes[0])
        nothing.gt_boxes = Boxes(torch.empty(0, 4, device=self.device))
        nothing.gt_classes = torch.empty(0, dtype=torch.int64, device=self.device)
        losses = self.own_losses(memory.select([0]), inputs[:1], [nothing])
        return {name: 0 * value for name, value in losses.items()}

    def check_truth(self, instances: Instances) -> None:
        """Raise UsageError if a box is of a class that the model has not got."""
        check_classes(instances, self.num_classes)

    def in_own_order(self, inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """RGB images as the stock model takes them.

        Raises:
            UsageError: an image is no (3, H, W) tensor with pixels.
        """
        check_images(inputs)
        return [x | {"image": x["image"].flip(0)} for x in inputs] if self.flip else inputs


def box_queries(best: Sequence[Tensor], sizes: Sequence[tuple[int, int]]) -> Queries:
    """Boxes as queries, without a graph; the whole image where an image has fewer than others.

    Args:
        best: (n, 4) of each image, xyxy in pixels.
        sizes: (h, w) of the images, without padding.

    Returns:
        (B, N, 4) boxes, N the largest n and at least 1.
    """
    count = max(1, *map(len, best))
    boxes = torch.tensor([0.5, 0.5, 1.0, 1.0], device=best[0].device).repeat(len(best), count, 1)
    for i, (own, (height, width)) in enumerate(zip(best, sizes, strict=True)):
        own = own.detach().float()
        boxes[i, : len(own)] = xyxy_to_cxcywh(own / own.new_tensor([width, height] * 2))
    return Queries(boxes)


def finite(boxes: Tensor) -> Tensor:
    """A query's boxes without a graph, in float.

    Raises:
        UsageError: one is not finite.
    """
    boxes = boxes.detach().float()
    if not torch.isfinite(boxes).all():
        raise UsageError(
            "A query's box is not finite: look at where the points come from, or at the weights of"
            " the detector that they are taken from."
        )
    return boxes


def _is_bgr(stock: nn.Module, input_format: str | None) -> bool:
    order = input_format or getattr(stock, "input_format", None)
    if order not in ("RGB", "BGR"):
        raise UsageError(
            f"Which order of channels the {type(stock).__name__} takes is not known"
            f" ({order!r}): set input_format to RGB or BGR."
        )
    return order == "BGR"
