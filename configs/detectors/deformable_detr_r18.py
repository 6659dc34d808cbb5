"""Deformable DETR R18 without refinement, 50 epochs (40.1 AP in the KD-DETR paper)."""

from ..common.weights import imagenet as _imagenet
from .deformable_detr_r50 import dataloader, lr_multiplier, model, optimizer, train

model.backbone.depth = 18
train.output_dir = "output/deformable_detr_r18"
train.init_checkpoint = _imagenet["r18"]
