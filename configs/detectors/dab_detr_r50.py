"""DAB-DETR R50, 50 epochs, as its authors train it (42.2 AP)."""

from detectron2.config import LazyCall as L

from kddetr.detectors import dab_detr, resnet

from ..common.data.coco_detr import dataloader
from ..common.optim import lr_multiplier, optimizer
from ..common.train import train
from ..common.weights import imagenet as _imagenet

model = L(dab_detr)(
    backbone=L(resnet)(depth=50, out_features=["res5"], freeze_at=2),
    num_classes=80,
)

train.output_dir = "output/dab_detr_r50"
train.init_checkpoint = _imagenet["r50"]
train.max_iter = 50 * 7393  # 118,287 images at batch 16; the rate drops after 40 of 50 epochs
train.eval_period = 7393
train.checkpointer.period = 7393
