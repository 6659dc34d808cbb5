"""Deformable DETR R50, two-stage, 50 epochs, as its authors train it (46.9 AP)."""

from .deformable_detr_refine_r50 import dataloader, lr_multiplier, model, optimizer, train

model.variant = "two_stage"
# References are proposals: there is no layer that learns them, and no rate for it.
optimizer.params.lr_factors.pop("query_source.reference")
train.output_dir = "output/deformable_detr_two_stage_r50"
