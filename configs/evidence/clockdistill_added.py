"""Rival: CLoCKDistill added to KD-DETR."""

from .clockdistill import model as _rival
from .target_queries_added import dataloader, lr_multiplier, model, optimizer, train

model.loss = _rival.loss
train.output_dir = "output/evidence/clockdistill_added"
