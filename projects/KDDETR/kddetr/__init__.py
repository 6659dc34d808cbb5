"""KD-DETR for Detectron2: distil detection transformers at shared distillation points."""

import importlib
from typing import Any

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
    "Predictor",
    "Queries",
    "QueryableDetector",
    "distill",
]

# Imported when it is first asked for, because it needs all that a training needs.
_LATER = {"Predictor": "prediction", "distill": "recipes"}


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(importlib.import_module(f".{_LATER[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
