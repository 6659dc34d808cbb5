"""The student of the quickstart, a DAB-Deformable-DETR, distilled from the larger DINO."""

from .dino_distilled import dataloader, lr_multiplier, model, train
from .distilled import optimizer
from .models import student as _student

model.student = _student
train.output_dir = "output/quickstart_dino/anchors_distilled"
