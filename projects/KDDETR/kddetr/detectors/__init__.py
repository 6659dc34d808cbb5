"""Detection transformers that answer any queries. Nothing in this room knows of any other use."""

from .backbone import TinyConvNet, resnet
from .cached import CachedEncoder
from .criterion import SetCriterion
from .dab_detr import dab_detr
from .deformable_detr import deformable_detr
from .dino import dino
from .matcher import HungarianMatcher
from .swin import swin
from .timm_backbone import timm_backbone
from .transformer import DetectionTransformer

__all__ = [
    "CachedEncoder",
    "DetectionTransformer",
    "HungarianMatcher",
    "SetCriterion",
    "TinyConvNet",
    "dab_detr",
    "deformable_detr",
    "dino",
    "resnet",
    "swin",
    "timm_backbone",
]
