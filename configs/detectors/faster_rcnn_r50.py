"""Faster R-CNN R50 with a feature pyramid, 12 epochs (1x), as Detectron2 has it (37.9 AP)."""

from detectron2.config import LazyCall as L

from kddetr.detectors import RegionDetector
from kddetr.detectors import zoo_config as _zoo

from ..common.coco_iterations import set_iterations as _set_iterations
from ..common.data.coco_rcnn import dataloader
from ..common.sgd import lr_multiplier, optimizer
from ..common.train import train
from ..common.weights import imagenet as _imagenet

model = L(RegionDetector)(stock=_zoo("common/models/mask_rcnn_fpn.py", boxes_only=True).model)
model.stock.backbone.bottom_up.freeze_at = 2

_set_iterations(train, dataloader, lr_multiplier, times=1)

train.output_dir = "output/faster_rcnn_r50"
train.init_checkpoint = _imagenet["r50_msra"]
