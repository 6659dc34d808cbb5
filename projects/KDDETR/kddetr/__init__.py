"""KD-DETR for Detectron2: distil detection transformers at shared distillation points."""

from . import quiet  # noqa: F401  (before the libraries that warn when they are imported)

# isort: split
from . import quickstart  # noqa: F401  (registers the bundled data sets)
from .distiller import KDDETR
from .structures import (
    Detector,
    EncodedDetector,
    PointSampler,
    Predictions,
    Queries,
    QueryableDetector,
)

__version__ = "0.1.0"
__all__ = [
    "KDDETR",
    "Detector",
    "EncodedDetector",
    "PointSampler",
    "Predictions",
    "Queries",
    "QueryableDetector",
]
