"""Weights of the points by their overlap with the ground truth."""

from collections.abc import Callable

import torch
from torch import Tensor

from ..boxes import box_giou
from ..losses import ForegroundWeight
from ..ranges import not_negative
from ..structures import Predictions
from .truth import encoded_of, ground_truth


class GIoUWeight:
    """The group query selection of QSKD (Liu et al., 2024, arXiv 2409.06443) as weights of points.

    QSKD groups the teacher's queries by the GIoU of their boxes with the ground truth, and distils
    those that are matched with an object together with the hard negatives, whose boxes lie on one
    too. Here a point has the largest GIoU of the teacher's box with an object as its weight, and 0
    where that is not above ``threshold`` (easy negatives). On an unlabelled image the weight is the
    teacher's highest class probability.

    This is not QSKD's prediction loss. In the implementation of it that TPRD's public code has,
    whose threshold is 0 too, all selected queries have the same weight in the prediction losses,
    and a query that is matched with an object is selected at any GIoU. They are not the same
    queries for both detectors: the student's own are paired with the teacher's, by the object or by
    Hungarian matching. The GIoU enters the mask of the features alone, where the cross-attention of
    a selected query is multiplied by 1 + GIoU; these features are not part of this.

    Args:
        weight: factor of these weights, at least 0; it matters beside ``added_to`` only.
        threshold: of the GIoU, at least 0.
        added_to: another weighting, to whose weights these are added; None: none.

    Raises:
        ValueError: a number is negative.
    """

    def __init__(
        self,
        *,
        weight: float = 1.0,
        threshold: float = 0.0,
        added_to: Callable[[Predictions], Tensor] | None = None,
    ) -> None:
        not_negative(weight=weight, threshold=threshold)
        self.weight, self.threshold, self.added_to = weight, threshold, added_to

    def __call__(self, teacher: Predictions) -> Tensor:
        """(B, N) weights, at least 0, without a gradient."""
        boxes, foreground = teacher.boxes[-1].detach().float(), ForegroundWeight()(teacher)
        targets = ground_truth(encoded_of(teacher, self), boxes.device)
        weights = self.weight * torch.stack(
            [
                foreground[i] if target is None else self._overlaps(boxes[i], target.boxes)
                for i, target in enumerate(targets)
            ]
        )
        return weights if self.added_to is None else weights + self.added_to(teacher)

    def _overlaps(self, boxes: Tensor, objects: Tensor) -> Tensor:
        """(N,) largest GIoU with one of (T, 4) objects; 0 at the threshold or below it."""
        if not len(objects):
            return boxes.new_zeros(len(boxes))
        giou = box_giou(boxes[:, None], objects[None]).amax(1)
        return torch.where(giou > self.threshold, giou, 0.0)
