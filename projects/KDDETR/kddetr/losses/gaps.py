"""How far a student's answer at a point is from its teacher's, point by point.

Shape letters: L student layers, B images, N points, K classes. A teacher's (1, B, N, ...) answer
broadcasts over the student's layers.
"""

import torch.nn.functional as F
from torch import Tensor

from ..boxes import IOU_EPS, box_giou


def kl_gap(student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
    """KL(teacher || student) of the class distributions at a temperature.

    Softmax over the classes of logits / T, mean over the classes (not the sum that defines the
    divergence), times T squared (Hinton et al., 2015), as the published KD-DETR code computes it.

    Args:
        student: (L, B, N, K) logits.
        teacher: (1, B, N, K) logits.
        temperature: T.

    Returns:
        (L, B, N), at least 0.
    """
    q = F.log_softmax(student.float() / temperature, dim=-1)
    p = F.log_softmax(teacher.float() / temperature, dim=-1)
    return (p.exp() * (p - q)).mean(-1) * temperature**2


def kl_background_gap(student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
    """:func:`kl_gap` over the K classes and background, whose logit is 0.

    softmax([z, 0]) is the distribution over classes and background in which each class has the
    odds exp(z) against background: a region detector's own, and for a sigmoid's logits, which are
    odds against everything else, close to theirs where one class is in play.

    Args, Returns: as of :func:`kl_gap`.
    """
    student, teacher = (F.pad(logits.float(), (0, 1)) for logits in (student, teacher))
    return kl_gap(student, teacher, temperature=temperature)


def bce_gap(student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
    """Binary cross-entropy against the teacher's probability of each class, mean over the classes,
    less the teacher's own entropy, so that equal answers are at no distance; times T squared.

    Args, Returns: as of :func:`kl_gap`.
    """
    student, teacher = (logits.float() / temperature for logits in (student, teacher))
    target = teacher.sigmoid().expand_as(student)
    gap = F.binary_cross_entropy_with_logits(student, target, reduction="none")
    own = F.binary_cross_entropy_with_logits(teacher, teacher.sigmoid(), reduction="none")
    return (gap - own).mean(-1) * temperature**2


def l1_gap(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean absolute difference of the four coordinates; (L, B, N, 4) boxes to (L, B, N)."""
    return (student.float() - teacher.float()).abs().mean(-1)


def giou_gap(student: Tensor, teacher: Tensor, *, eps: float = IOU_EPS) -> Tensor:
    """1 - GIoU of corresponding ``cxcywh`` boxes; (L, B, N, 4) to (L, B, N), in [0, 2]."""
    return 1 - box_giou(student.float(), teacher.float(), eps=eps)
