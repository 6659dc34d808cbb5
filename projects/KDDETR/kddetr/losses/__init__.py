"""Distillation losses: how far the student's predictions are from the teacher's at the same points.

A loss is any callable of the kind :class:`~kddetr.structures.DistillationLoss`. The ones here are
put together from a class loss, box losses and a weighting of the points.
"""

from ..renamed import explain_old_names
from ..structures import DistillationLoss
from .combined import ByGroup, LayerByLayer, SumOfLosses
from .point_loss import PerImageLoss, PublishedLoss, WeightedMeanLoss
from .terms import (
    BinaryCrossEntropy,
    GIoULoss,
    KLDivergence,
    KLWithBackground,
    L1Loss,
    PointTerm,
)
from .weighting import EqualWeight, ForegroundWeight

__all__ = [
    "BinaryCrossEntropy",
    "ByGroup",
    "DistillationLoss",
    "EqualWeight",
    "ForegroundWeight",
    "GIoULoss",
    "KLDivergence",
    "KLWithBackground",
    "L1Loss",
    "LayerByLayer",
    "PerImageLoss",
    "PointTerm",
    "PublishedLoss",
    "SumOfLosses",
    "WeightedMeanLoss",
]

__getattr__ = explain_old_names(__name__)
