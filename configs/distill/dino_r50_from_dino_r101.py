"""DINO R50, 12 epochs, from R101, 36 epochs (49.0 to 51.6 AP in the paper).

Batch, rate and schedule are those of the student alone: none have been published for this pair.
"""

from ..common.kd_detr_published import model
from ..detectors.dino_r50 import dataloader, lr_multiplier, optimizer, train
from ..detectors.dino_r50 import model as _student
from ..detectors.dino_r101 import model as _teacher

model.student = _student
model.teacher.model = _teacher
train.output_dir = "output/dino_r50_from_dino_r101"
