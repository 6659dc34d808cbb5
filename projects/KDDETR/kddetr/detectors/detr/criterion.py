"""Set-prediction loss against ground truth: focal class loss, L1 and GIoU on the matched pairs.

Shape letters: L decoder layers, B images, N queries, K classes, P matched pairs.
"""

import itertools
from collections.abc import Sequence

import torch
from fvcore.nn import sigmoid_focal_loss
from torch import Tensor, nn

from ...boxes import IOU_EPS, box_giou
from ...parallel import normaliser
from ...ranges import fraction, not_negative
from ...structures import Predictions
from ...transfer import numbers
from .matcher import HungarianMatcher, Matches, Target

BOXES = "ground-truth boxes"  # name of the normaliser


class SetCriterion(nn.Module):
    """Weighted losses of every decoder layer; the queries of each layer are matched separately.

    Args:
        matcher: assigns ground truth to queries.
        class_weight, box_weight, giou_weight: weights of the three losses. They are 1, 5, 2 in
            DAB-DETR and DINO, and 2, 5, 2 in Deformable DETR.
        alpha, gamma: of the focal loss.
        eps: of the GIoU, see :func:`kddetr.boxes.box_giou`.

    Raises:
        ValueError: a number is negative, or ``alpha`` above 1.
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
        not_negative(class_weight=class_weight, box_weight=box_weight, giou_weight=giou_weight)
        not_negative(gamma=gamma, eps=eps)
        fraction(alpha=alpha)
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
        """Scalar losses by name: ``loss_class`` of the last layer, ``loss_class_0`` of the first,
        and so on. Each is divided by the number of ground-truth boxes per process (averaged over
        the processes, at least 1) and by ``repeats``.

        Args:
            predictions: (L, B, N, ...).
            targets: of each image.
            matches: which query has to find which box; None: the matcher decides.
            repeats: the number of queries that have to find each box.
            suffix: added to each name, before the number of the layer.
        """
        if matches is None:
            matches = self.matcher(predictions, targets)
        terms = self.terms(predictions, targets, matches)
        num_boxes = float(sum(len(target.labels) for target in targets))
        num_boxes = torch.full((), num_boxes, device=predictions.logits.device)
        divisor = normaliser(num_boxes, least=1, name=BOXES) * repeats
        losses = {}
        for name, weight in self.weights.items():
            *early, last = (weight * terms[name] / divisor).unbind()
            losses[f"{name}{suffix}"] = last
            losses |= {f"{name}{suffix}_{i}": value for i, value in enumerate(early)}
        return losses

    def match(self, pairs: Sequence[tuple[Predictions, Sequence[Target]]]) -> list[Matches]:
        """The matches of several predictions with their targets, at once where the matcher has no
        call of its own.
        """
        if type(self.matcher).__call__ is HungarianMatcher.__call__:
            return self.matcher.together(pairs)
        return [self.matcher(*pair) for pair in pairs]

    def terms(
        self, predictions: Predictions, targets: Sequence[Target], matches: Matches
    ) -> dict[str, Tensor]:
        """The three losses as sums over queries or matched pairs, (L,) each, without any weight."""
        logits, boxes = predictions.logits.float(), predictions.boxes.float()
        index = (matches.layer, matches.image, matches.query)
        first = [0, *itertools.accumulate(len(t.labels) for t in targets)][:-1]
        row = numbers(first, logits.device)[matches.image] + matches.target  # in the joined targets
        labels = torch.cat([t.labels for t in targets])[row]
        target_boxes = torch.cat([t.boxes for t in targets])[row]

        one_hot = torch.zeros_like(logits)
        one_hot[(*index, labels)] = 1
        focal = sigmoid_focal_loss(logits, one_hot, alpha=self.alpha, gamma=self.gamma)
        matched_boxes = boxes[index]
        l1 = (matched_boxes - target_boxes).abs().sum(-1)
        giou = 1 - box_giou(matched_boxes, target_boxes, eps=self.eps)

        def by_layer(values: Tensor) -> Tensor:
            zeros = values.new_zeros(predictions.num_layers)
            return zeros.index_add(0, matches.layer, values)

        return {
            "loss_class": focal.sum((1, 2, 3)),
            "loss_bbox": by_layer(l1),
            "loss_giou": by_layer(giou),
        }
