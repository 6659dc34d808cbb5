"""Detections from the predictions of a layer: the best pairs of query and class, without NMS."""

from collections.abc import Sequence
from typing import Any

from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Boxes, Instances
from torch import Tensor

from ...boxes import cxcywh_to_xyxy
from ...errors import DivergedError
from .traceable import best


def select_detections(
    logits: Tensor, boxes: Tensor, image_sizes: Sequence[tuple[int, int]], *, count: int
) -> list[Instances]:
    """The ``count`` pairs of query and class with the highest scores in each image, or all N * K.

    A query may appear more than once. The results have ``pred_boxes`` (``xyxy`` in pixels, not
    clipped), ``scores`` in [0, 1], descending, and ``pred_classes``.

    Args:
        logits: (B, N, K).
        boxes: (B, N, 4) ``cxcywh`` in [0, 1] of the unpadded image.
        image_sizes: (h, w) in pixels of the unpadded network inputs.
    """
    boxes, scores, classes = best_pairs(logits, boxes, count)
    detections = []
    for i, (height, width) in enumerate(image_sizes):
        scaled = boxes[i] * boxes.new_tensor([width, height, width, height])
        found = {"pred_boxes": Boxes(scaled), "scores": scores[i], "pred_classes": classes[i]}
        detections.append(Instances((height, width), **found))
    return detections


def detector_outputs(
    detections: Sequence[Instances], inputs: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """What a detector of Detectron2 returns in evaluation mode: detections of each input, scaled to
    the height and width that they are wanted for.

    Raises:
        DivergedError: a predicted box is infinite or NaN.
    """
    if not all(d.pred_boxes.tensor.isfinite().all() for d in detections):
        raise DivergedError(
            "The detector predicts boxes that are not finite numbers: its weights may have"
            " diverged, or be too large for the precision (train.amp); take an earlier"
            " checkpoint."
        )
    outputs = []
    for found, x in zip(detections, inputs, strict=True):
        height, width = found.image_size
        scaled = detector_postprocess(found, x.get("height", height), x.get("width", width))
        outputs.append({"instances": scaled})
    return outputs


def best_pairs(logits: Tensor, boxes: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """The ``count`` pairs of query and class with the highest scores in each image, or all N * K.

    Args:
        logits, boxes, count: see :func:`select_detections`.

    Returns:
        (B, D, 4) boxes ``xyxy`` in the unit of the given ones, (B, D) scores in [0, 1], descending,
        and (B, D) classes.
    """
    scores = logits.float().sigmoid().flatten(1)
    scores, index = best(scores, count)
    query, classes = index // logits.shape[-1], index % logits.shape[-1]
    boxes = cxcywh_to_xyxy(boxes.float()).gather(1, query[..., None].expand(-1, -1, 4))
    return boxes, scores, classes
