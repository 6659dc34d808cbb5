"""What KD-DETR is compared with: controls that break its consistent points, and other methods.

Each is a sampler, a query placement, a weighting or a loss for the same distiller, so that nothing
but the method differs between two experiments. Nothing but configs/evidence uses them.
"""

from .decoupled import DecoupledKL
from .features import FeatureImitation
from .giou_weight import GIoUWeight
from .moved_boxes import AtMovedBoxes
from .pairing import HungarianPairing, IndexPairing, NoPoints
from .places import OtherPlaces
from .refined import RefinedTargets
from .shuffled import ShuffledAnswers
from .target_queries import TargetSampler

__all__ = [
    "AtMovedBoxes",
    "DecoupledKL",
    "FeatureImitation",
    "GIoUWeight",
    "HungarianPairing",
    "IndexPairing",
    "NoPoints",
    "OtherPlaces",
    "RefinedTargets",
    "ShuffledAnswers",
    "TargetSampler",
]
