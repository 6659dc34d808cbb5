"""The small Faster R-CNN distilled from the record that distilled_recorded.py describes."""

from .distilled_recorded import model as _recorded
from .faster_rcnn_distilled_unlabeled import dataloader, lr_multiplier, model, optimizer, train

model.teacher = _recorded.teacher
model.sampler = _recorded.sampler
train.output_dir = "output/heterogeneous/distilled_recorded"
