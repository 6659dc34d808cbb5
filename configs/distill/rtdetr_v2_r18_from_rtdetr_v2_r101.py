"""RT-DETRv2 R18, 120 epochs, from RT-DETRv2 R101 (hf://PekingU/rtdetr_v2_r101vd).

Batch, rate and schedule are those of the student alone: none have been published for this pair.
"""

from ..common.kd_realtime import model
from ..detectors.rtdetr_v2_r18 import dataloader, lr_multiplier, optimizer, train
from ..detectors.rtdetr_v2_r18 import model as _student
from ..detectors.rtdetr_v2_r101 import model as _teacher

model.student = _student
model.teacher.model = _teacher
train.output_dir = "output/rtdetr_v2_r18_from_rtdetr_v2_r101"
