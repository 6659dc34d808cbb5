"""Set-prediction loss against ground truth: focal class loss, L1 and GIoU on the matched pairs.

Shape letters: L decoder layers, B images, N queries, K classes, P matched pairs.
"""

from collections.abc import Sequence

import torch
from fvcore.nn import sigmoid_focal_loss
from torch import Tensor, nn

from ...boxes import IOU_EPS, box_giou
from ...parallel import mean_over_processes
from ...structures import Predictions
from .matcher import HungarianMatcher, Matches, Target


class SetCriterion(nn.Module):
    """Weighted losses of every decoder layer, each matched for itself.

    Args:
        matcher: assigns ground truth to queries.
        class_weight, box_weight, giou_weight: 1, 5, 2 in DAB-DETR and DINO; Deformable DETR's
            class weight is 2.
        alpha, gamma: of the focal loss.
        eps: of the GIoU.
    """

    def __init__(
        self,
        *,
        matcher: HungarianMatcher,
        class_weight: float = 1.0,
        box_weight: float = 5.0,
        giou_weight: float = 2.0,
        alpha: float = 0.25,
        gamma: float = 2.0,
        eps: float = IOU_EPS,
    ) -> None:
        super().__init__()
        self.matcher = matcher
        self.weights = {
            "loss_class": class_weight,
            "loss_bbox": box_weight,
            "loss_giou": giou_weight,
        }
        self.alpha, self.gamma, self.eps = alpha, gamma, eps

    def forward(
        self,
        predictions: Predictions,
        targets: Sequence[Target],
        *,
        matches: Matches | None = None,
        repeats: int = 1,
        suffix: str = "",
    ) -> dict[str, Tensor]:
        """Losses by name; the last layer has no number, layer i before it ends in ``_i``.

        Everything is divided by the number of ground-truth boxes, averaged over processes and at
        least 1.

        Args:
            predictions: (L, B, N, ...).
            targets: one an image.
            matches: which query is to find which box; None: the matcher decides.
            repeats: how often each box is to be found; divides the losses too.
            suffix: put behind each ``loss_*``.
        """
        if matches is None:
            matches = self.matcher(predictions, targets)
        boxes = sum(len(target.labels) for target in targets)
        terms = self.terms(predictions, targets, matches)
        count = torch.tensor(float(boxes), device=predictions.logits.device)
        normaliser = mean_over_processes(count).clamp(min=1) * repeats
        losses = {}
        for name, weight in self.weights.items():
            *early, last = (weight * terms[name] / normaliser).unbind()
            losses[f"{name}{suffix}"] = last
            losses |= {f"{name}{suffix}_{i}": value for i, value in enumerate(early)}
        return losses

    def terms(
        self, predictions: Predictions, targets: Sequence[Target], matches: Matches
    ) -> dict[str, Tensor]:
        """Unweighted sums over queries or pairs, (L,) each, not yet divided by anything."""
        logits, boxes = predictions.logits.float(), predictions.boxes.float()
        index = (matches.layer, matches.image, matches.query)
        starts = (
            torch.tensor([0] + [len(t.labels) for t in targets[:-1]]).cumsum(0).to(logits.device)
        )
        which = starts[matches.image] + matches.target
        labels = torch.cat([t.labels for t in targets])[which]
        wanted = torch.cat([t.boxes for t in targets])[which]

        one_hot = torch.zeros_like(logits)
        one_hot[(*index, labels)] = 1
        focal = sigmoid_focal_loss(logits, one_hot, alpha=self.alpha, gamma=self.gamma)
        pairs = boxes[index]
        l1 = (pairs - wanted).abs().sum(-1)
        giou = 1 - box_giou(pairs, wanted, eps=self.eps)

        def by_layer(values: Tensor) -> Tensor:
            zeros = values.new_zeros(predictions.num_layers)
            return zeros.index_add(0, matches.layer, values)

        return {
            "loss_class": focal.sum((1, 2, 3)),
            "loss_bbox": by_layer(l1),
            "loss_giou": by_layer(giou),
        }
