"""Data: mapper, loader by position, COCO-format folders, and the bundled data (registered here)."""

from .checks import check_dataset, check_same_classes, dataset_names
from .coco import (
    load_coco_format,
    load_image_folder,
    register_coco_format,
    without_annotations,
)
from .digits import QuickstartSpec
from .entries import DatasetError
from .loader import TrainLoader, build_train_loader
from .mapper import DetectionMapper, ShortestEdge, read_image
from .quickstart import make_quickstart_data, quickstart_root, register_quickstart

register_quickstart()

__all__ = [
    "DatasetError",
    "DetectionMapper",
    "QuickstartSpec",
    "ShortestEdge",
    "TrainLoader",
    "build_train_loader",
    "check_dataset",
    "check_same_classes",
    "dataset_names",
    "load_coco_format",
    "load_image_folder",
    "make_quickstart_data",
    "quickstart_root",
    "read_image",
    "register_coco_format",
    "register_quickstart",
    "without_annotations",
]
