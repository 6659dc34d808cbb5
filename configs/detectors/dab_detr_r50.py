"""DAB-DETR R50, 50 epochs, as its authors train it (42.2 AP)."""

from detectron2.config import LazyCall as L

from kddetr.detectors import dab_detr, resnet

from ..common.coco_epochs import set_epochs as _set_epochs
from ..common.data.coco_detr import dataloader
from ..common.optim import lr_multiplier, optimizer
from ..common.train import train
from ..common.weights import imagenet as _imagenet

model = L(dab_detr)(
    backbone=L(resnet)(depth=50, out_features=["res5"], freeze_at=2),
    num_classes=80,
)

_set_epochs(train, dataloader, lr_multiplier, epochs=50, drop=40, batch=16)

train.output_dir = "output/dab_detr_r50"
train.init_checkpoint = _imagenet["r50"]
