"""DINO R50 with 4 scales, 12 epochs, as its authors train it (49.0 AP).

Their weights need the positional embedding of this file, temperature 20 and no offset, and one set
of heads for all decoder layers. detrex's 12-epoch weights need dino_r50_detrex.py.
"""

from detectron2.config import LazyCall as L

from kddetr.detectors import dino, resnet

from ..common.coco_epochs import set_epochs as _set_epochs
from ..common.data.coco_detr import dataloader
from ..common.optim import lr_multiplier, optimizer
from ..common.train import train
from ..common.weights import imagenet as _imagenet

model = L(dino)(
    backbone=L(resnet)(depth=50, freeze_at=2),
    num_classes=80,
    temperature=20.0,
    offset=0.0,
    shared_heads=True,
)

_set_epochs(train, dataloader, lr_multiplier, epochs=12, drop=11, batch=16)

train.output_dir = "output/dino_r50"
train.init_checkpoint = _imagenet["r50"]
