"""Deformable DETR R50 without refinement, 50 epochs, as its authors train it (44.5 AP)."""

from detectron2.config import LazyCall as L

from kddetr.detectors import HungarianMatcher, SetCriterion, deformable_detr, resnet

from ..common.coco_epochs import set_epochs as _set_epochs
from ..common.data.coco_detr import dataloader
from ..common.optim import lr_multiplier, optimizer
from ..common.train import train
from ..common.weights import imagenet as _imagenet

model = L(deformable_detr)(
    backbone=L(resnet)(depth=50, freeze_at=2),
    num_classes=80,
    variant="plain",
    eps=1e-5,  # the authors' clamp and plain GIoU, not the 1e-3 and 1e-6 of DAB-DETR and detrex
    criterion=L(SetCriterion)(matcher=L(HungarianMatcher)(eps=0.0), class_weight=2.0, eps=0.0),
    num_detections=100,
)

optimizer.lr = 2e-4
optimizer.params.lr_factors = {
    "backbone": 0.1,
    "query_source.reference": 0.1,
    "sampling_offsets": 0.1,
}
_set_epochs(train, dataloader, lr_multiplier, epochs=50, drop=40, batch=32)

train.output_dir = "output/deformable_detr_r50"
train.init_checkpoint = _imagenet["r50"]
