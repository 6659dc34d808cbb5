"""Cascade R-CNN R50 with a feature pyramid, 12 epochs (1x), Detectron2's without its masks."""

from kddetr.detectors import zoo_config as _zoo

from .faster_rcnn_r50 import dataloader, lr_multiplier, model, optimizer, train

model.stock = _zoo("common/models/cascade_rcnn.py", boxes_only=True).model
model.stock.backbone.bottom_up.freeze_at = 2
model.stock.proposal_generator.post_nms_topk = [2000, 1000]  # as its published recipe

train.output_dir = "output/cascade_rcnn_r50"
