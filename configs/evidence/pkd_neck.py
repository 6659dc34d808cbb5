"""Rival: feature imitation (PKD) of the maps that enter the encoder, without distillation points.

The cache keeps no such maps, so the teacher encodes every image at every step.
"""

from .pkd_encoder import dataloader, lr_multiplier, model, optimizer, train

model.teacher = model.teacher.detector
model.loss.maps = "neck"
model.loss.teacher_channels = "${model.teacher.model.embed_dim}"
train.output_dir = "output/evidence/pkd_neck"
