"""A small Faster R-CNN trained alone, on 300 labelled images."""

from .common import dataloader, lr_multiplier, optimizer, train
from .rcnn_models import student as model

optimizer.lr = 4e-3
train.output_dir = "output/heterogeneous/alone"
