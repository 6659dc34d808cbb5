"""The student trained alone, on 300 labelled images."""

from .common import dataloader, lr_multiplier, optimizer, train
from .models import student as model

# Shorter than the other experiments, so that the three runs of the quickstart take minutes.
train.max_iter = 1300
train.eval_period = 325
train.checkpointer.period = 650
train.output_dir = "output/quickstart/alone"
