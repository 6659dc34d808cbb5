"""Cascade R-CNN R50, 12 epochs (1x), from DINO R50: the loss compares each of its three stages.

Batch, rate and schedule are those of the student alone: none have been published for this pair.
"""

from ..detectors.cascade_rcnn_r50 import model as _student
from .faster_rcnn_r50_from_dino_r50 import dataloader, lr_multiplier, model, optimizer, train

model.student = _student
train.output_dir = "output/cascade_rcnn_r50_from_dino_r50"
