"""DINO R101 with 4 scales, 36 epochs (51.3 AP as a teacher in the KD-DETR paper)."""

from ..common.coco_epochs import set_epochs as _set_epochs
from ..common.weights import imagenet as _imagenet
from .dino_r50 import dataloader, lr_multiplier, model, optimizer, train

model.backbone.depth = 101
_set_epochs(train, dataloader, lr_multiplier, epochs=36, drop=30, batch=16)
train.output_dir = "output/dino_r101"
train.init_checkpoint = _imagenet["r101"]
