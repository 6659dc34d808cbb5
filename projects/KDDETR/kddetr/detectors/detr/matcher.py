"""One-to-one assignment of ground truth to queries (Carion et al., DETR), all layers at once.

Shape letters: L decoder layers, B images, N queries, K classes, T boxes of one image.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from detectron2.structures import Instances
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from ...boxes import IOU_EPS, box_giou, xyxy_to_cxcywh
from ...ranges import fraction, not_negative
from ...structures import Predictions
from ...transfer import numbers, to_device


@dataclass(frozen=True)
class Target:
    """Ground truth of one image.

    Attributes:
        labels: (T,) int64 class indices.
        boxes: (T, 4) ``cxcywh`` in [0, 1] of the unpadded image.
    """

    labels: Tensor
    boxes: Tensor


def target_of(instances: Instances, device: torch.device) -> Target:
    """The ground truth of an image, ``gt_boxes`` in pixels and ``gt_classes``, on a device."""
    height, width = instances.image_size
    boxes = to_device(instances.gt_boxes.tensor, device).float()
    scale = numbers([width, height, width, height], device, boxes.dtype)
    return Target(to_device(instances.gt_classes, device), xyxy_to_cxcywh(boxes / scale))


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

    Raises:
        ValueError: a number is negative, or ``alpha`` above 1.
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
        not_negative(class_cost=class_cost, box_cost=box_cost, giou_cost=giou_cost)
        not_negative(gamma=gamma, eps=eps)
        fraction(alpha=alpha)
        self.weights = (class_cost, box_cost, giou_cost)
        self.alpha, self.gamma, self.eps = alpha, gamma, eps

    def __call__(self, predictions: Predictions, targets: Sequence[Target]) -> Matches:
        """Match the queries of every layer and image separately."""
        return self.together([(predictions, targets)])[0]

    @torch.no_grad()
    def together(self, pairs: Sequence[tuple[Predictions, Sequence[Target]]]) -> list[Matches]:
        """The matches of several predictions, each with targets of its own, for which the host
        waits for the device only once.
        """
        costs = [
            [self._cost(predictions, i, target) for i, target in enumerate(targets)]
            for predictions, targets in pairs
        ]
        return _assign(costs, pairs[0][0].logits.device)

    def _cost(self, predictions: Predictions, image: int, target: Target) -> Tensor:
        """(L, N, T) weighted costs of one image."""
        terms = self.costs(predictions.logits[:, image], predictions.boxes[:, image], target)
        cost = sum(w * t for w, t in zip(self.weights, terms, strict=True))
        # NaN must not raise an error here: the loss will be NaN too, and then the trainer's message
        # names the step, its loss terms and its images.
        return torch.nan_to_num(cost, nan=1e8, posinf=1e8, neginf=-1e8)

    def costs(self, logits: Tensor, boxes: Tensor, target: Target) -> tuple[Tensor, ...]:
        """Unweighted class, L1 and (negative) GIoU costs of one image, (L, N, T) each."""
        p = logits.float().sigmoid()[..., target.labels]
        negative = (1 - self.alpha) * p**self.gamma * -torch.log(1 - p + 1e-8)
        positive = self.alpha * (1 - p) ** self.gamma * -torch.log(p + 1e-8)
        boxes = boxes.float()[..., None, :]
        l1 = (boxes - target.boxes).abs().sum(-1)
        return positive - negative, l1, -box_giou(boxes, target.boxes, eps=self.eps)


def _assign(groups: Sequence[Sequence[Tensor]], device: torch.device) -> list[Matches]:
    """Solve the (L, N, T) costs of every image of every group; they reach the CPU, and the matches
    the device, in a single transfer.
    """
    flat = torch.cat([cost.flatten() for costs in groups for cost in costs]).double().cpu()
    rows: list[tuple[int, int, int, int]] = []
    start, ends = 0, []
    for costs in groups:
        for image, cost in enumerate(costs):
            block = flat[start : start + cost.numel()].view(cost.shape).numpy()
            start += cost.numel()
            for layer, matrix in enumerate(block):
                pairs = zip(*linear_sum_assignment(matrix), strict=True)
                rows += [(layer, image, int(q), int(t)) for q, t in pairs]
        ends.append(len(rows))
    found = to_device(torch.tensor(rows, dtype=torch.int64).view(-1, 4).t(), device)
    return [Matches(*found[:, a:b]) for a, b in itertools.pairwise([0, *ends])]
