"""Teachers: wrappers around a frozen detector, and a teacher whose answers were recorded.

One wrapper caches the encoder, and one selects classes by name.
"""

from ..data.class_differences import listed
from ..data.class_names import class_names
from .cached_encoder import CachedEncoder
from .recorded_teacher import RecordedTeacher
from .vocabulary import Vocabulary, trained_classes

__all__ = [
    "CachedEncoder",
    "RecordedTeacher",
    "Vocabulary",
    "class_names",
    "listed",
    "trained_classes",
]
