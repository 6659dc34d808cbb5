"""Teachers: wrappers around a frozen detector, and a teacher whose answers were recorded.

One wrapper caches the encoder, one selects classes by name, one keeps weights in half precision;
one makes an ordinary detector of a teacher.
"""

from ..data.class_differences import listed
from ..data.class_names import class_names
from .cached_encoder import CachedEncoder
from .detections import TeacherDetector
from .half_precision import HalfPrecision
from .recorded_teacher import RecordedTeacher
from .vocabulary import Vocabulary, trained_classes

__all__ = [
    "CachedEncoder",
    "HalfPrecision",
    "RecordedTeacher",
    "TeacherDetector",
    "Vocabulary",
    "class_names",
    "listed",
    "trained_classes",
]
