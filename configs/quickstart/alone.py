"""The student trained alone, on 300 labelled images."""

from .common import dataloader, lr_multiplier, optimizer, train
from .models import student as model

# Half as long as the other experiments, so that the three runs of the quickstart take minutes.
train.max_iter = 1000
train.eval_period = 250
train.checkpointer.period = 500
train.output_dir = "output/quickstart/alone"
