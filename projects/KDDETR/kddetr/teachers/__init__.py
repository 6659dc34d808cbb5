"""Wrappers around a frozen teacher: one caches its encoder, one selects its classes by name."""

from .cached_encoder import CachedEncoder
from .vocabulary import Vocabulary, class_names, listed

__all__ = ["CachedEncoder", "Vocabulary", "class_names", "listed"]
