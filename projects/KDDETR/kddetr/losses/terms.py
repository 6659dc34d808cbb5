"""The terms of a distillation loss: the difference between student and teacher, point by point.

A term has a ``name``, which the log shows, a ``weight``, and maps the predictions of both detectors
to one value for each student layer, image and point. The teacher's predictions have one layer,
which every student layer is compared with.

Shape letters: L student layers, B images, N points, K classes.
"""

from typing import Protocol

import torch.nn.functional as F
from torch import Tensor

from ..boxes import IOU_EPS, box_giou
from ..errors import UsageError, check_above, check_at_least
from ..structures import Predictions


class PointTerm(Protocol):
    """One term of a distillation loss."""

    @property
    def name(self) -> str:
        """Last part of the loss's name in the log."""

    @property
    def weight(self) -> float:
        """Factor of the term in the loss."""

    def __call__(self, student: Predictions, teacher: Predictions) -> Tensor:
        """(L, B, N) unweighted values of at least 0; the teacher has one layer."""


class KLDivergence:
    """KL(teacher || student) of the class distributions at a temperature T.

    A softmax over the classes of logits / T, averaged over the classes (the definition sums), times
    T squared (Hinton et al., 2015), as the published KD-DETR code computes it.

    Args:
        weight: of the term. 10 suits a mean over the points, because the mean over the classes at
            T = 10 makes the KL small beside the box terms; the published loss, a sum over the
            points, has 1.
        temperature: T; 10 as published.

    Raises:
        UsageError: when called for a single class, where the KL is always 0, unless the weight is
            0.
    """

    name = "class"

    def __init__(self, *, weight: float = 10.0, temperature: float = 10.0) -> None:
        check_at_least(0, weight=weight)
        check_above(0, temperature=temperature)
        self.weight = weight
        self.temperature = temperature

    def __call__(self, student: Predictions, teacher: Predictions) -> Tensor:
        """(L, B, N), at least 0."""
        if student.logits.shape[-1] == 1 and self.weight:
            raise UsageError(
                "The KL divergence over a single class is always 0, so no class would be"
                " distilled: set model.loss.class_loss._target_ to kddetr.losses.KLWithBackground"
                " or kddetr.losses.BinaryCrossEntropy."
            )
        return self.divergence(student.logits.float(), teacher.logits.float())

    def divergence(self, student: Tensor, teacher: Tensor) -> Tensor:
        """(L, B, N, K) and (1, B, N, K) logits to (L, B, N)."""
        q = F.log_softmax(student / self.temperature, dim=-1)
        p = F.log_softmax(teacher / self.temperature, dim=-1)
        return (p.exp() * (p - q)).mean(-1) * self.temperature**2


class KLWithBackground(KLDivergence):
    """:class:`KLDivergence` over the K classes and background, whose logit is 0.

    softmax([z, 0]) is the distribution over classes and background in which class c has the odds
    exp(z_c) against background. For a region detector this is its own distribution. A sigmoid's
    logits are the odds of a class against everything else, which is nearly the same where only one
    class is likely.
    """

    def __call__(self, student: Predictions, teacher: Predictions) -> Tensor:
        """(L, B, N), at least 0."""
        padded = (F.pad(answers.logits.float(), (0, 1)) for answers in (student, teacher))
        return self.divergence(*padded)


class BinaryCrossEntropy:
    """Binary cross-entropy with the teacher's probability of each class, averaged over the classes.

    The teacher's own entropy is subtracted, so that equal predictions give 0, and the result is
    multiplied by the squared temperature. It suits teachers that end in sigmoids, whose classes are
    independent of one another.

    Args:
        weight: of the term.
        temperature: divides all logits.
    """

    name = "class"

    def __init__(self, *, weight: float = 10.0, temperature: float = 10.0) -> None:
        check_at_least(0, weight=weight)
        check_above(0, temperature=temperature)
        self.weight = weight
        self.temperature = temperature

    def __call__(self, student: Predictions, teacher: Predictions) -> Tensor:
        """(L, B, N), at least 0."""
        ours, theirs = (a.logits.float() / self.temperature for a in (student, teacher))
        target = theirs.sigmoid()
        cross = F.binary_cross_entropy_with_logits(ours, target.expand_as(ours), reduction="none")
        entropy = F.binary_cross_entropy_with_logits(theirs, target, reduction="none")
        return (cross - entropy).mean(-1) * self.temperature**2


class L1Loss:
    """Mean absolute difference of the four ``cxcywh`` coordinates.

    Args:
        weight: of the term; 5 as published.
    """

    name = "bbox"

    def __init__(self, *, weight: float = 5.0) -> None:
        check_at_least(0, weight=weight)
        self.weight = weight

    def __call__(self, student: Predictions, teacher: Predictions) -> Tensor:
        """(L, B, N), at least 0."""
        return (student.boxes.float() - teacher.boxes.float()).abs().mean(-1)


class GIoULoss:
    """1 - GIoU of the two boxes (Rezatofighi et al., CVPR 2019).

    Args:
        weight: of the term; 2 as published.
        eps: see :func:`kddetr.boxes.box_giou`.
    """

    name = "giou"

    def __init__(self, *, weight: float = 2.0, eps: float = IOU_EPS) -> None:
        check_at_least(0, weight=weight, eps=eps)
        self.weight = weight
        self.eps = eps

    def __call__(self, student: Predictions, teacher: Predictions) -> Tensor:
        """(L, B, N) in [0, 2]."""
        return 1 - box_giou(student.boxes.float(), teacher.boxes.float(), eps=self.eps)
