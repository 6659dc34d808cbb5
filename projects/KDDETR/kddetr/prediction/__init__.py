"""Prediction with a trained detector: its checkpoint is all that is needed."""

from .default_predictor import DefaultPredictor
from .predictor import Predictor

__all__ = ["DefaultPredictor", "Predictor"]
