"""Wrappers around a frozen teacher: one caches its encoder, one selects its classes by name."""

from ..data.class_differences import listed
from ..data.class_names import class_names
from .cached_encoder import CachedEncoder
from .vocabulary import Vocabulary, trained_classes

__all__ = ["CachedEncoder", "Vocabulary", "class_names", "listed", "trained_classes"]
