"""The small Faster R-CNN trained on labels and on the pseudo-labels of pseudo_labels.py."""

from .faster_rcnn_alone import lr_multiplier, model, optimizer, train
from .pseudo_labels import dataloader

train.output_dir = "output/heterogeneous/pseudo_labels"
