"""Data in COCO's format: reading and checking it, the mapper, and the resumable loader."""

from ..errors import DatasetError
from ..renamed import explain_old_names
from .checks import check_dataset, check_same_classes, dataset_names
from .class_names import class_difference, class_names, registered_classes
from .coco import (
    load_coco_format,
    load_image_folder,
    register_coco_format,
    without_annotations,
)
from .loader import TrainLoader, build_train_loader
from .mapper import DetectionMapper, ShortestEdge, read_image

__all__ = [
    "DatasetError",
    "DetectionMapper",
    "ShortestEdge",
    "TrainLoader",
    "build_train_loader",
    "check_dataset",
    "check_same_classes",
    "class_difference",
    "class_names",
    "dataset_names",
    "load_coco_format",
    "load_image_folder",
    "read_image",
    "register_coco_format",
    "registered_classes",
    "without_annotations",
]

__getattr__ = explain_old_names(__name__)
