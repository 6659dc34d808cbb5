"""Rival: the weights of QSKD added to the foreground weights of KD-DETR, at its points."""

from detectron2.config import LazyCall as L

from kddetr.baselines import GIoUWeight

from ..quickstart.distilled import dataloader, lr_multiplier, model, optimizer, train

model.loss.weighting = L(GIoUWeight)(weight=1.0, added_to=model.loss.weighting)
train.output_dir = "output/evidence/qskd_added"
