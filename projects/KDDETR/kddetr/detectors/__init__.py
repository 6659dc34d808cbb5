"""Detectors that answer any queries: transformers, and models of Detectron2. Nothing in this room
knows of any other use.
"""

from .backbone import TinyConvNet, resnet
from .cached import CachedEncoder
from .criterion import SetCriterion
from .dab_detr import dab_detr
from .deformable_detr import deformable_detr
from .dense import DenseQueryDetector
from .detectron2_models import detectron2_detector, model_zoo_detector, zoo_config
from .dino import dino
from .matcher import HungarianMatcher
from .regions import RegionDetector
from .swin import swin
from .timm_backbone import timm_backbone
from .transformer import DetectionTransformer

__all__ = [
    "CachedEncoder",
    "DenseQueryDetector",
    "DetectionTransformer",
    "HungarianMatcher",
    "RegionDetector",
    "SetCriterion",
    "TinyConvNet",
    "dab_detr",
    "deformable_detr",
    "detectron2_detector",
    "dino",
    "model_zoo_detector",
    "resnet",
    "swin",
    "timm_backbone",
    "zoo_config",
]
