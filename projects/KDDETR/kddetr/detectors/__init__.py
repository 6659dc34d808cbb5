"""Detection transformers that answer any queries. Nothing in this room knows of any other use."""

from .backbone import TinyConvNet, resnet
from .cached import CachedEncoder
from .criterion import SetCriterion
from .dab_detr import dab_detr
from .deformable_detr import deformable_detr
from .matcher import HungarianMatcher
from .transformer import DetectionTransformer

__all__ = [
    "CachedEncoder",
    "DetectionTransformer",
    "HungarianMatcher",
    "SetCriterion",
    "TinyConvNet",
    "dab_detr",
    "deformable_detr",
    "resnet",
]
