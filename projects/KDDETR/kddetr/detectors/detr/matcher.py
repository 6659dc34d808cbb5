"""One-to-one assignment of ground truth to queries (Carion et al., DETR), all layers at once.

Shape letters: L decoder layers, B images, N queries, K classes, T boxes of one image.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from ...boxes import IOU_EPS, box_giou
from ...errors import check_at_least
from ...structures import Predictions


@dataclass(frozen=True)
class Target:
    """Ground truth of one image.

    Attributes:
        labels: (T,) int64 class indices.
        boxes: (T, 4) ``cxcywh`` in [0, 1] of the unpadded image.
    """

    labels: Tensor
    boxes: Tensor


@dataclass(frozen=True)
class Matches:
    """Which query is matched with which box: P pairs of all layers and images.

    Attributes:
        layer, image, query, target: (P,) int64 indices; ``target`` counts the boxes of the image.
    """

    layer: Tensor
    image: Tensor
    query: Tensor
    target: Tensor


class HungarianMatcher:
    """The assignment with the lowest sum of class, L1 and GIoU costs, solved by scipy.

    Args:
        class_cost, box_cost, giou_cost: weights of the three costs.
        alpha, gamma: of the focal class cost.
        eps: of the GIoU; 0 in the Deformable DETR project.
    """

    def __init__(
        self,
        *,
        class_cost: float = 2.0,
        box_cost: float = 5.0,
        giou_cost: float = 2.0,
        alpha: float = 0.25,
        gamma: float = 2.0,
        eps: float = IOU_EPS,
    ) -> None:
        check_at_least(0, class_cost=class_cost, box_cost=box_cost, giou_cost=giou_cost)
        check_at_least(0, alpha=alpha, gamma=gamma, eps=eps)
        self.weights = (class_cost, box_cost, giou_cost)
        self.alpha, self.gamma, self.eps = alpha, gamma, eps

    @torch.no_grad()
    def __call__(self, predictions: Predictions, targets: Sequence[Target]) -> Matches:
        """Match the queries of every layer and image separately."""
        costs = []
        for i, target in enumerate(targets):
            terms = self.costs(predictions.logits[:, i], predictions.boxes[:, i], target)
            cost = sum(w * t for w, t in zip(self.weights, terms, strict=True))
            # NaN must not raise an error here: the loss will be NaN too, and then the trainer's
            # message names the step, its loss terms and its images.
            costs.append(torch.nan_to_num(cost, nan=1e8, posinf=1e8, neginf=-1e8))
        return _assign(costs, predictions.logits.device)

    def costs(self, logits: Tensor, boxes: Tensor, target: Target) -> tuple[Tensor, ...]:
        """Unweighted class, L1 and (negative) GIoU costs of one image, (L, N, T) each."""
        p = logits.float().sigmoid()[..., target.labels]
        negative = (1 - self.alpha) * p**self.gamma * -torch.log(1 - p + 1e-8)
        positive = self.alpha * (1 - p) ** self.gamma * -torch.log(p + 1e-8)
        boxes = boxes.float()[..., None, :]
        l1 = (boxes - target.boxes).abs().sum(-1)
        return positive - negative, l1, -box_giou(boxes, target.boxes, eps=self.eps)


def _assign(costs: Sequence[Tensor], device: torch.device) -> Matches:
    """Solve the (L, N, T) costs of every image, which reach the CPU in a single transfer."""
    flat = torch.cat([c.flatten() for c in costs]).double().cpu()
    rows: list[tuple[int, int, int, int]] = []
    start = 0
    for image, cost in enumerate(costs):
        block = flat[start : start + cost.numel()].view(cost.shape).numpy()
        start += cost.numel()
        for layer, matrix in enumerate(block):
            queries, targets = linear_sum_assignment(matrix)
            rows += [(layer, image, int(q), int(t)) for q, t in zip(queries, targets, strict=True)]
    return Matches(*torch.tensor(rows, dtype=torch.int64).view(-1, 4).t().to(device))
