"""DINO R18 from R50, 12 epochs (44.0 to 48.4 AP in the paper).

Batch, rate and schedule are those of the student alone: none have been published for this pair.
"""

from ..common.kd_detr_published import model
from ..detectors.dino_r18 import dataloader, lr_multiplier, optimizer, train
from ..detectors.dino_r18 import model as _student
from ..detectors.dino_r50 import model as _teacher

model.student = _student
model.teacher.model = _teacher
train.output_dir = "output/dino_r18_from_dino_r50"
