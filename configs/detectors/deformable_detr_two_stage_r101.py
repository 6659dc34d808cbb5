"""Deformable DETR R101, two-stage, 50 epochs."""

from ..common.weights import imagenet as _imagenet
from .deformable_detr_two_stage_r50 import dataloader, lr_multiplier, model, optimizer, train

model.backbone.depth = 101
train.output_dir = "output/deformable_detr_two_stage_r101"
train.init_checkpoint = _imagenet["r101"]
