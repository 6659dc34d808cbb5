"""Detections from the predictions of a layer: the best pairs of query and class, without NMS."""

from collections.abc import Sequence

import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor

from ...boxes import cxcywh_to_xyxy


def select_detections(
    logits: Tensor, boxes: Tensor, image_sizes: Sequence[tuple[int, int]], *, count: int
) -> list[Instances]:
    """The pairs of query and class with the highest scores; a query may appear more than once.

    Args:
        logits: (B, N, K).
        boxes: (B, N, 4) ``cxcywh`` in [0, 1] of the unpadded image.
        image_sizes: (h, w) in pixels of the unpadded network inputs.
        count: number of detections per image; N * K where there are fewer pairs.

    Returns:
        ``Instances`` of each image: ``pred_boxes`` (``xyxy`` in pixels, not clipped), ``scores`` in
        [0, 1], descending, and ``pred_classes``.
    """
    scores = logits.float().sigmoid().flatten(1)
    scores, index = scores.topk(min(count, scores.shape[1]), dim=1)
    query = torch.div(index, logits.shape[-1], rounding_mode="floor")
    boxes = cxcywh_to_xyxy(boxes.float()).gather(1, query[..., None].expand(-1, -1, 4))
    detections = []
    for i, (height, width) in enumerate(image_sizes):
        instances = Instances((height, width))
        instances.pred_boxes = Boxes(boxes[i] * boxes.new_tensor([width, height, width, height]))
        instances.scores = scores[i]
        instances.pred_classes = index[i] % logits.shape[-1]
        detections.append(instances)
    return detections
