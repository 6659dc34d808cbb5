"""DAB-DETR R50 from R101, 50 epochs (42.1 to 45.7 AP in the paper)."""

from ..common.kd_detr_published import model
from ..detectors.dab_detr_r50 import dataloader, lr_multiplier, optimizer, train
from ..detectors.dab_detr_r50 import model as _student
from ..detectors.dab_detr_r101 import model as _teacher

model.student = _student
model.teacher.model = _teacher
model.sampler.samplers[0].distribution = "normal_logit"
train.output_dir = "output/dab_detr_r50_from_dab_detr_r101"
