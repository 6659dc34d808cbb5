"""Rival: specific points weighted by the ground truth, as QSKD selects queries."""

from detectron2.config import LazyCall as L

from kddetr.baselines import GIoUWeight
from kddetr.points import SpecificSampler

from ..quickstart.distilled import dataloader, lr_multiplier, model, optimizer, train

model.sampler = L(SpecificSampler)()
model.loss.weighting = L(GIoUWeight)()
train.output_dir = "output/evidence/qskd"
