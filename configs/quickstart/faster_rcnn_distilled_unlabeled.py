"""Distilled, with half of each batch unlabelled: distillation needs no annotations."""

from .faster_rcnn_distilled import dataloader, lr_multiplier, model, optimizer, train

train.output_dir = "output/heterogeneous/distilled_unlabeled"
dataloader.train.unlabeled_per_batch = 4
