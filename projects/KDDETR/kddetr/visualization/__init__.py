"""Pictures: detections side by side and in an image of its full size, distillation points over an
image, AP curves.

Figures are made without pyplot, so that no backend is chosen for the process.
"""

from .annotated import draw_detections, side_by_side
from .curves import ap_curves
from .detections import detections_side_by_side
from .matching import Matching, match_detections
from .points import points_over_image

__all__ = [
    "Matching",
    "ap_curves",
    "detections_side_by_side",
    "draw_detections",
    "match_detections",
    "points_over_image",
    "side_by_side",
]
