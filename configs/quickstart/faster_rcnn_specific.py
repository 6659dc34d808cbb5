"""The small Faster R-CNN distilled at the specific points only, of a live teacher."""

from .distilled_recorded import model as _recorded
from .faster_rcnn_distilled_unlabeled import dataloader, lr_multiplier, model, optimizer, train

model.sampler = _recorded.sampler
train.output_dir = "output/heterogeneous/distilled_specific"
