"""Deformable DETR R101 with iterative box refinement."""

from .deformable_detr_r101 import dataloader, lr_multiplier, model, optimizer, train

model.variant = "refine"
train.output_dir = "output/deformable_detr_refine_r101"
