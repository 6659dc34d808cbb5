"""Faster R-CNN R50 with a feature pyramid, 37 epochs (3x), as Detectron2 has it (40.2 AP)."""

from ..common.coco_iterations import set_iterations as _set_iterations
from .faster_rcnn_r50 import dataloader, lr_multiplier, model, optimizer, train

_set_iterations(train, dataloader, lr_multiplier, times=3)

train.output_dir = "output/faster_rcnn_r50_3x"
