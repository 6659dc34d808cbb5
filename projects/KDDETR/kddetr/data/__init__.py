"""Data in COCO's format: finding, reading and checking it, the mapper, and the resumable loader."""

from ..errors import DatasetError
from ..renamed import explain_old_names
from .checks import (
    check_dataset,
    check_pixels,
    check_same_classes,
    dataset_names,
    image_folder,
    warn_of_shared_images,
)
from .class_differences import class_difference
from .class_names import class_names, registered_classes
from .coco import load_coco_format, register_coco_format, without_annotations
from .entries import is_left_out
from .evaluation_loader import build_test_loader
from .fingerprint import data_card
from .folders import list_images, load_image_folder
from .images import read_image
from .inspection import DataReport, Finding, inspect_data, write_data_page
from .layouts import DataFolder, Split, find_data
from .loader import TrainLoader, build_train_loader
from .mapper import DetectionMapper, ShortestEdge
from .torchvision_augmentations import IoUCrop, PhotometricDistort, ZoomOut

__all__ = [
    "DataFolder",
    "DataReport",
    "DatasetError",
    "DetectionMapper",
    "Finding",
    "IoUCrop",
    "PhotometricDistort",
    "ShortestEdge",
    "Split",
    "TrainLoader",
    "ZoomOut",
    "build_test_loader",
    "build_train_loader",
    "check_dataset",
    "check_pixels",
    "check_same_classes",
    "class_difference",
    "class_names",
    "data_card",
    "dataset_names",
    "find_data",
    "image_folder",
    "inspect_data",
    "is_left_out",
    "list_images",
    "load_coco_format",
    "load_image_folder",
    "read_image",
    "register_coco_format",
    "registered_classes",
    "warn_of_shared_images",
    "without_annotations",
    "write_data_page",
]

__getattr__ = explain_old_names(__name__)
