"""The small DINO trained alone, on 300 labelled images."""

from .common import dataloader, lr_multiplier, optimizer, train
from .dino_models import student as model

optimizer.lr = 4e-3
train.output_dir = "output/quickstart_dino/dino_alone"
