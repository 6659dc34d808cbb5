"""DINO R18 with 4 scales, 12 epochs (44.0 AP in the KD-DETR paper)."""

from ..common.weights import imagenet as _imagenet
from .dino_r50 import dataloader, lr_multiplier, model, optimizer, train

model.backbone.depth = 18
train.output_dir = "output/dino_r18"
train.init_checkpoint = _imagenet["r18"]
