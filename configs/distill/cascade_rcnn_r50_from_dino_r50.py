"""Cascade R-CNN R50, 12 epochs (1x), from DINO R50: each of its three stages is taught."""

from ..detectors.cascade_rcnn_r50 import model as _student
from .faster_rcnn_r50_from_dino_r50 import dataloader, lr_multiplier, model, optimizer, train

model.student = _student
train.output_dir = "output/cascade_rcnn_r50_from_dino_r50"
