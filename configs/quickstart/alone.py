"""The student trained alone, on 300 labelled images."""

from .common import dataloader, lr_multiplier, optimizer, train
from .models import student as model

train.output_dir = "output/quickstart/alone"
