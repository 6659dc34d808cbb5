"""A DAB-DETR trained alone, on 300 labelled images."""

from .common import dataloader, lr_multiplier, optimizer, train
from .dino_models import dab_student as model

optimizer.lr = 1e-3
train.output_dir = "output/quickstart_dino/dab_alone"
