"""The small Faster R-CNN distilled from the DINO teacher, which is as wide as the bundled one."""

from ..quickstart.dino_distilled import model as _dino
from ..quickstart.faster_rcnn_distilled import dataloader, lr_multiplier, model, optimizer, train

model.teacher = _dino.teacher
train.output_dir = "output/evidence/faster_rcnn_from_dino"
