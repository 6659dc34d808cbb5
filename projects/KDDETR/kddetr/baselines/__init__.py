"""What KD-DETR is compared with: controls that break its consistent points, and other methods.

Each is a sampler, a query placement, a weighting or a loss for the same distiller, so that nothing
but the method differs between two experiments. Nothing but configs/evidence uses them.
"""

from .pairing import HungarianPairing, IndexPairing, NoPoints
from .places import OtherPlaces
from .shuffled import ShuffledAnswers

__all__ = [
    "HungarianPairing",
    "IndexPairing",
    "NoPoints",
    "OtherPlaces",
    "ShuffledAnswers",
]
