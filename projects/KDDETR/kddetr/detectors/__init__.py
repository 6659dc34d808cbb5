"""Detectors that answer any queries: detection transformers, and models of Detectron2.

This package imports nothing from the packages for points, losses, teachers, distillation and
training.
"""

from ..renamed import explain_old_names
from .backbones.resnet import TinyConvNet, resnet
from .backbones.swin import swin
from .backbones.timm_backbone import timm_backbone
from .detr.criterion import SetCriterion
from .detr.dab_detr import dab_detr
from .detr.deformable_detr import deformable_detr
from .detr.dino import dino
from .detr.matcher import HungarianMatcher
from .detr.transformer import DetectionTransformer
from .hf.build import huggingface_arguments, huggingface_detector
from .hf.detector import HuggingFaceDetector
from .stock.dense import DenseQueryDetector
from .stock.models import detectron2_detector, model_zoo_detector, zoo_config
from .stock.regions import RegionDetector

__all__ = [
    "DenseQueryDetector",
    "DetectionTransformer",
    "HuggingFaceDetector",
    "HungarianMatcher",
    "RegionDetector",
    "SetCriterion",
    "TinyConvNet",
    "dab_detr",
    "deformable_detr",
    "detectron2_detector",
    "dino",
    "huggingface_arguments",
    "huggingface_detector",
    "model_zoo_detector",
    "resnet",
    "swin",
    "timm_backbone",
    "zoo_config",
]

__getattr__ = explain_old_names(__name__)
