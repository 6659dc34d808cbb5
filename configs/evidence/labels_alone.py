"""The quickstart's student alone, with a chosen number of labelled images."""

from ..quickstart.alone import lr_multiplier, model, optimizer, train
from .labels_distilled import dataloader

train.output_dir = "output/evidence/labels_alone"
