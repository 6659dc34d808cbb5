"""Deformable DETR R101 without refinement, 50 epochs (48.0 AP as a teacher in the paper)."""

from ..common.weights import imagenet as _imagenet
from .deformable_detr_r50 import dataloader, lr_multiplier, model, optimizer, train

model.backbone.depth = 101
train.output_dir = "output/deformable_detr_r101"
train.init_checkpoint = _imagenet["r101"]
