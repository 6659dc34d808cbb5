"""Which detections are right: greedy, best score first, as the COCO evaluation matches.

Shape letters: N detections, M ground-truth boxes of one image.
"""

from dataclasses import dataclass

import torch
from detectron2.structures import Boxes, pairwise_iou
from torch import Tensor

MATCH_IOU = 0.5


@dataclass(frozen=True)
class Matching:
    """Who found whom in one image.

    Attributes:
        correct: (N,) bool, detections that found an object; the others are false, second
            detections of an object that has been found included.
        missed: (M,) bool, objects that no detection found.
    """

    correct: Tensor
    missed: Tensor

    def __str__(self) -> str:
        found, wrong = int(self.correct.sum()), int((~self.correct).sum())
        return f"{found} found, {int(self.missed.sum())} missed, {wrong} false"


def match_detections(
    *,
    boxes: Tensor,
    scores: Tensor,
    classes: Tensor,
    gt_boxes: Tensor,
    gt_classes: Tensor,
    min_iou: float = MATCH_IOU,
) -> Matching:
    """Gives each detection, best score first, the free object of its class it overlaps most.

    Args:
        boxes: (N, 4) ``xyxy`` pixels.
        scores: (N,).
        classes: (N,) integers.
        gt_boxes: (M, 4) ``xyxy`` pixels.
        gt_classes: (M,) integers.
        min_iou: a pair below it is no match.
    """
    iou = pairwise_iou(Boxes(boxes.float()), Boxes(gt_boxes.float()))
    iou = iou.masked_fill(classes[:, None] != gt_classes[None], -1.0).cpu()
    correct = torch.zeros(len(boxes), dtype=torch.bool)
    missed = torch.ones(len(gt_boxes), dtype=torch.bool)
    if len(gt_boxes):
        for i in scores.argsort(descending=True, stable=True).tolist():
            best = iou[i].masked_fill(~missed, -1.0).max(0)
            if best.values >= min_iou:
                correct[i] = True
                missed[best.indices] = False
    return Matching(correct, missed)
