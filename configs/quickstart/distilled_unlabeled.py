"""Distilled, with images without labels in half of each batch: points need no annotation."""

from .distilled import dataloader, lr_multiplier, model, optimizer, train

train.output_dir = "output/quickstart/distilled_unlabeled"
dataloader.train.unlabeled_per_batch = 4
