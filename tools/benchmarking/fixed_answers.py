"""A teacher that takes no time, so that a step measures only what points cost the student."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from kddetr.boxes import xyxy_to_cxcywh
from kddetr.errors import UsageError
from kddetr.points import jittered
from kddetr.structures import Predictions, Queries

from .batches import Batch

COUNT = 300  # of its own queries


class FixedAnswers(nn.Module):
    """A teacher whose predictions are fixed numbers, whatever the images and the points.

    Its own queries and its predictions lie around the objects of a batch, like those of a trained
    detector.

    Args:
        boxes: (B, M, 4) ``cxcywh`` in [0, 1] of the objects, M at least 1.
        num_classes: K.
    """

    query_parts: Mapping[str, int] = {}

    def __init__(self, boxes: Tensor, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        near = boxes[:, torch.arange(COUNT) % boxes.shape[1]]
        self.register_buffer("found", jittered(near, shift=0.2, scale=0.3))
        # Most points have low scores for all classes, a few have a high one.
        self.register_buffer("logits", 2 * torch.randn(*near.shape[:2], num_classes) - 4)

    @classmethod
    def around(cls, batch: Batch, num_classes: int) -> "FixedAnswers":
        """Answers around the objects of a batch whose images have equally many, at least one.

        Raises:
            UsageError: they have not.
        """
        boxes = []
        for x in batch:
            height, width = x["image"].shape[-2:]
            scale = torch.tensor([width, height, width, height])
            boxes.append(xyxy_to_cxcywh(x["instances"].gt_boxes.tensor / scale))
        if len({len(found) for found in boxes}) != 1 or not len(boxes[0]):
            raise UsageError("--fixed-teacher needs objects in the images: give --boxes 1 or more.")
        return cls(torch.stack(boxes), num_classes)

    def encode(self, inputs: Batch) -> int:
        """Only the number of images: the predictions do not depend on them."""
        return len(inputs)

    def queries(self, memory: int) -> Queries:
        """Queries at the predicted boxes."""
        return Queries(self.found[:memory])

    def make_queries(self, memory: int, boxes: Tensor) -> Queries:
        """Queries at these boxes, the same for each image."""
        return Queries(boxes.to(self.found).expand(memory, -1, -1))

    def random_queries(self, memory: int, images: int, count: int) -> Queries:
        """Not needed: the queries are boxes."""
        raise UsageError("The queries of a FixedAnswers are made of boxes: use make_queries.")

    def decode(self, memory: int, queries: Queries) -> Predictions:
        """The fixed predictions, repeated to the number of queries, (1, B, N, ...)."""
        index = torch.arange(len(queries), device=self.found.device) % COUNT
        return Predictions(self.logits[None, :memory, index], self.found[None, :memory, index])
