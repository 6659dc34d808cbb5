"""The same Faster R-CNN on the same images, distilled from the bundled detection transformer."""

from ..common.kd_heterogeneous import loss as _loss
from ..common.kd_heterogeneous import placement as _placement
from .distilled import dataloader, lr_multiplier, model, train
from .faster_rcnn_alone import optimizer
from .rcnn_models import student as _student

model.student = _student
model.placement = _placement
model.loss = _loss
train.output_dir = "output/heterogeneous/distilled"
