"""D-FINE S, 132 epochs, from D-FINE X (hf://ustc-community/dfine-xlarge-obj2coco).

Batch, rate and schedule are those of the student alone: none have been published for this pair.
"""

from ..common.kd_realtime import model
from ..detectors.dfine_s import dataloader, lr_multiplier, optimizer, train
from ..detectors.dfine_s import model as _student
from ..detectors.dfine_x import model as _teacher

model.student = _student
model.teacher.model = _teacher
train.output_dir = "output/dfine_s_from_dfine_x"
