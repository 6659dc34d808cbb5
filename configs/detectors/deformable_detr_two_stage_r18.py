"""Deformable DETR R18, two-stage, 50 epochs."""

from ..common.weights import imagenet as _imagenet
from .deformable_detr_two_stage_r50 import dataloader, lr_multiplier, model, optimizer, train

model.backbone.depth = 18
train.output_dir = "output/deformable_detr_two_stage_r18"
train.init_checkpoint = _imagenet["r18"]
