"""Rival: CLoCKDistill, target-aware queries and imitation of the memory by objects."""

from detectron2.config import LazyCall as L

from kddetr.losses import SumOfLosses

from .pkd_encoder import model as _imitation
from .target_queries import dataloader, lr_multiplier, model, optimizer, train

model.loss = L(SumOfLosses)(losses=[model.loss, _imitation.loss])
model.loss.losses[1].objects = True
train.output_dir = "output/evidence/clockdistill"
