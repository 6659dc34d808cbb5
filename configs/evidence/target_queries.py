"""Rival: distilled at the target-aware queries of CLoCKDistill alone."""

from detectron2.config import LazyCall as L

from kddetr.baselines import TargetSampler

from ..quickstart.distilled import dataloader, lr_multiplier, model, optimizer, train

model.sampler = L(TargetSampler)(count=20)
train.output_dir = "output/evidence/target_queries"
