"""DINO Swin-L with 4 scales, 12 epochs: window 12, from weights of ImageNet-22k at 384 pixels.

Needs timm: pip install -e .[timm]
"""

from ..common.weights import imagenet as _imagenet
from .dino_swin_t import dataloader, lr_multiplier, model, optimizer, train

model.backbone.size = "large"
model.backbone.window = 12
train.output_dir = "output/dino_swin_l"
train.init_checkpoint = _imagenet["swin_l_384_22k"]
