"""The same Faster R-CNN on the same images, distilled from the bundled detection transformer."""

from detectron2.config import LazyCall as L

from kddetr.points import AtAnswers

from .distilled import dataloader, lr_multiplier, model
from .faster_rcnn_alone import optimizer, train
from .rcnn_models import student as _student

model.student = _student
model.query_placement = L(AtAnswers)()
train.output_dir = "output/heterogeneous/distilled"
