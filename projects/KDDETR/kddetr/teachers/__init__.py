"""Wrappers around a frozen teacher: one caches its encoder, one selects its classes by name, one
keeps its weights in half precision.
"""

from ..data.class_differences import listed
from ..data.class_names import class_names
from .cached_encoder import CachedEncoder
from .half_precision import HalfPrecision
from .vocabulary import Vocabulary, trained_classes

__all__ = [
    "CachedEncoder",
    "HalfPrecision",
    "Vocabulary",
    "class_names",
    "listed",
    "trained_classes",
]
