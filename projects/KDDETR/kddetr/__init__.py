"""KD-DETR for Detectron2: distil detection transformers at shared distillation points."""

from . import data  # registers the bundled data sets
from .distiller import KDDETR
from .structures import Answerer, Detector, PointSampler, Predictions, Queries

__version__ = "0.1.0"
__all__ = ["KDDETR", "Answerer", "Detector", "PointSampler", "Predictions", "Queries", "data"]
