"""DAB-DETR R18, 50 epochs (36.2 AP in the KD-DETR paper)."""

from ..common.weights import imagenet as _imagenet
from .dab_detr_r50 import dataloader, lr_multiplier, model, optimizer, train

model.backbone.depth = 18
train.output_dir = "output/dab_detr_r18"
train.init_checkpoint = _imagenet["r18"]
