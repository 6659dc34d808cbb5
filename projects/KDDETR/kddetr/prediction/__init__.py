"""Prediction with a trained detector: its checkpoint is all that is needed."""

from .coco_json import CocoJson
from .default_predictor import DefaultPredictor
from .inputs import check_targets, find_inputs
from .predictor import Predictor
from .run import PredictionRun
from .source import Source, source_of

__all__ = [
    "CocoJson",
    "DefaultPredictor",
    "PredictionRun",
    "Predictor",
    "Source",
    "check_targets",
    "find_inputs",
    "source_of",
]
