"""Distilled, with half of each batch unlabelled: distillation needs no annotations."""

from .distilled import dataloader, lr_multiplier, model, optimizer, train

train.output_dir = "output/quickstart/distilled_unlabeled"
dataloader.train.unlabeled_per_batch = 4
