"""Evaluation: COCO's metric on data sets of any kind, and the test sets of a config."""

from .arguments import coco_backend
from .coco import CocoEvaluator

__all__ = ["CocoEvaluator", "coco_backend"]
