"""Distilled at the specific points only: what distilled_recorded.py is asked, of a live teacher."""

from .distilled_recorded import model as _recorded
from .distilled_unlabeled import dataloader, lr_multiplier, model, optimizer, train

model.sampler = _recorded.sampler
train.output_dir = "output/quickstart/distilled_specific"
