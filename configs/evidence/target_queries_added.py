"""Rival: the target-aware queries of CLoCKDistill beside the points of KD-DETR."""

from ..quickstart.distilled import dataloader, lr_multiplier, model, optimizer, train
from .target_queries import model as _targets

model.sampler.samplers.append(_targets.sampler)
train.output_dir = "output/evidence/target_queries_added"
