"""DAB-DETR R101, 50 epochs (43.5 AP as a teacher in the KD-DETR paper)."""

from ..common.weights import imagenet as _imagenet
from .dab_detr_r50 import dataloader, lr_multiplier, model, optimizer, train

model.backbone.depth = 101
train.output_dir = "output/dab_detr_r101"
train.init_checkpoint = _imagenet["r101"]
