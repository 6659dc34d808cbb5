"""Deformable DETR R50 from R101, 50 epochs (44.5 to 48.3 AP in the paper).

Batch, rate and schedule are those of the student alone: none have been published for this pair.
"""

from ..common.kd_detr_published import model
from ..detectors.deformable_detr_r50 import dataloader, lr_multiplier, optimizer, train
from ..detectors.deformable_detr_r50 import model as _student
from ..detectors.deformable_detr_r101 import model as _teacher

model.student = _student
model.teacher.model = _teacher
train.output_dir = "output/deformable_detr_r50_from_deformable_detr_r101"
