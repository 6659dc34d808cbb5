"""A small RT-DETRv2 trained alone, on 300 labelled images."""

from .common import dataloader, lr_multiplier, optimizer, train
from .rtdetr_models import student as model

train.output_dir = "output/realtime/alone"
