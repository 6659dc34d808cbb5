"""Faster R-CNN R50, 37 epochs (3x), from DINO R50.

Batch, rate and schedule are those of the student alone: none have been published for this pair.
"""

from ..detectors.faster_rcnn_r50_3x import lr_multiplier, train
from .faster_rcnn_r50_from_dino_r50 import dataloader, model, optimizer

train.output_dir = "output/faster_rcnn_r50_from_dino_r50_3x"
