"""DINO Swin-T with 4 scales, 12 epochs: the recipe of DINO R50 on another backbone.

Needs timm: pip install -e .[timm]
"""

from detectron2.config import LazyCall as L

from kddetr.detectors import swin

from ..common.weights import imagenet as _imagenet
from .dino_r50 import dataloader, lr_multiplier, model, optimizer, train

model.backbone = L(swin)(size="tiny")
train.output_dir = "output/dino_swin_t"
train.init_checkpoint = _imagenet["swin_t"]
