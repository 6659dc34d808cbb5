"""Wrappers of a frozen teacher: its encoder's output cached, its classes selected by name."""

from .cached_encoder import CachedEncoder
from .vocabulary import Vocabulary, class_names, listed

__all__ = ["CachedEncoder", "Vocabulary", "class_names", "listed"]
