"""Teachers: wrappers around a frozen detector, and a teacher whose answers were recorded.

One wrapper caches the encoder, one selects classes by name, one keeps weights in half precision.
"""

from ..data.class_differences import listed
from ..data.class_names import class_names
from .cached_encoder import CachedEncoder
from .half_precision import HalfPrecision
from .recorded_teacher import RecordedTeacher
from .vocabulary import Vocabulary, trained_classes

__all__ = [
    "CachedEncoder",
    "HalfPrecision",
    "RecordedTeacher",
    "Vocabulary",
    "class_names",
    "listed",
    "trained_classes",
]
