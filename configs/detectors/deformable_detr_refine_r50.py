"""Deformable DETR R50 with iterative box refinement (46.2 AP)."""

from .deformable_detr_r50 import dataloader, lr_multiplier, model, optimizer, train

model.variant = "refine"
train.output_dir = "output/deformable_detr_refine_r50"
