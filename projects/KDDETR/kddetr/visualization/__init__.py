"""Pictures: detections side by side, distillation points over an image, AP curves.

Figures are made without pyplot, so that no backend is chosen for the process.
"""

from .curves import ap_curves
from .detections import detections_side_by_side
from .matching import Matching, match_detections
from .points import points_over_image

__all__ = [
    "Matching",
    "ap_curves",
    "detections_side_by_side",
    "match_detections",
    "points_over_image",
]
