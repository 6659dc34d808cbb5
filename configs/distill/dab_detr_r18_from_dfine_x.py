"""DAB-DETR R18, 50 epochs, from D-FINE X (hf://ustc-community/dfine-xlarge-obj2coco).

Batch, rate and schedule are those of the student alone: none have been published for this pair. The
teacher resizes the student's images to a square.
"""

from ..common.kd_realtime import model
from ..detectors.dab_detr_r18 import dataloader, lr_multiplier, optimizer, train
from ..detectors.dab_detr_r18 import model as _student
from ..detectors.dfine_x import model as _teacher

model.student = _student
model.teacher.model = _teacher
train.output_dir = "output/dab_detr_r18_from_dfine_x"
