"""Rival: feature imitation (PKD) of the maps that enter the encoder, added to KD-DETR."""

from detectron2.config import LazyCall as L

from kddetr.losses import SumOfLosses

from ..quickstart.distilled import dataloader, lr_multiplier, model, optimizer, train
from .pkd_neck import model as _imitation

model.teacher = _imitation.teacher
model.loss = L(SumOfLosses)(losses=[model.loss, _imitation.loss])
train.output_dir = "output/evidence/pkd_neck_added"
