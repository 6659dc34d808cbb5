"""What it costs to answer differently from the teacher. A loss is any callable from the student's
answers, the teacher's and the points to named, weighted scalars.
"""

from .distillation import DistillationLoss, foreground_weight
from .gaps import bce_gap, giou_gap, kl_background_gap, kl_gap, l1_gap

__all__ = [
    "DistillationLoss",
    "bce_gap",
    "foreground_weight",
    "giou_gap",
    "kl_background_gap",
    "kl_gap",
    "l1_gap",
]
