"""Which detections are correct: matched greedily, best score first, as in the COCO evaluation.

Shape letters: N detections, M ground-truth boxes of one image.
"""

from dataclasses import dataclass

import torch
from detectron2.structures import Boxes, pairwise_iou
from torch import Tensor

MATCH_IOU = 0.5


@dataclass(frozen=True)
class Matching:
    """Which detections of one image are correct, and which objects were missed.

    Attributes:
        correct: (N,) bool, True for a detection that was matched to an object. A second detection
            of the same object is not correct.
        missed: (M,) bool, True for an object without a detection.
    """

    correct: Tensor
    missed: Tensor

    def __str__(self) -> str:
        found, wrong = int(self.correct.sum()), int((~self.correct).sum())
        return f"{found} found, {int(self.missed.sum())} missed, {wrong} false"


def match_detections(
    *, boxes: Tensor, scores: Tensor, classes: Tensor, gt_boxes: Tensor, gt_classes: Tensor
) -> Matching:
    """Matches each detection, best score first, to the object of its class with the highest IoU
    among those that are not matched yet, if that IoU is at least ``MATCH_IOU``.

    Boxes are (N, 4) and (M, 4) ``xyxy`` pixels, scores (N,), classes (N,) and (M,) integers.
    """
    iou = pairwise_iou(Boxes(boxes.float()), Boxes(gt_boxes.float()))
    iou = iou.masked_fill(classes[:, None] != gt_classes[None], -1.0).cpu()
    correct = torch.zeros(len(boxes), dtype=torch.bool)
    missed = torch.ones(len(gt_boxes), dtype=torch.bool)
    for i in scores.argsort(descending=True, stable=True).tolist():
        if missed.any():
            best = iou[i].masked_fill(~missed, -1.0).max(0)
            if best.values >= MATCH_IOU:
                correct[i] = True
                missed[best.indices] = False
    return Matching(correct, missed)
