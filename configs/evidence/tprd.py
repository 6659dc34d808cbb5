"""Rival: specific points with TPRD's refined targets, layer against layer, and its class term."""

from detectron2.config import LazyCall as L

from kddetr.baselines import DecoupledKL, RefinedTargets
from kddetr.losses import LayerByLayer
from kddetr.points import SpecificSampler

from ..quickstart.distilled import dataloader, lr_multiplier, model, optimizer, train

model.sampler = L(SpecificSampler)()
model.loss.class_loss = L(DecoupledKL)(weight=1.0)
model.loss = L(RefinedTargets)(loss=L(LayerByLayer)(loss=model.loss))
train.output_dir = "output/evidence/tprd"
