"""Faster R-CNN R50, 12 epochs (1x), from D-FINE X (hf://ustc-community/dfine-xlarge-obj2coco).

Batch, rate and schedule are those of the student alone: none have been published for this pair.
"""

from ..common.kd_heterogeneous import model
from ..detectors.dfine_x import model as _teacher
from ..detectors.faster_rcnn_r50 import dataloader, lr_multiplier, optimizer, train
from ..detectors.faster_rcnn_r50 import model as _student

model.student = _student
model.teacher.model = _teacher
train.output_dir = "output/faster_rcnn_r50_from_dfine_x"
