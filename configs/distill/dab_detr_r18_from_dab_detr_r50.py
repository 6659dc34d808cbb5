"""DAB-DETR R18 from R50, 50 epochs (36.2 to 41.4 AP in the paper).

Batch, rate and schedule are those of the published command: 8 processes (--num-gpus 8) of 8 images
at lr 2e-4, a tenth of it for the backbone, and a drop after 40 epochs. For 16 images the rate is
scaled to 1e-4, which is that of the DAB-DETR project.
"""

from ..common.coco_epochs import set_epochs as _set_epochs
from ..common.kd_detr_published import model
from ..detectors.dab_detr_r18 import dataloader, lr_multiplier, optimizer, train
from ..detectors.dab_detr_r18 import model as _student
from ..detectors.dab_detr_r50 import model as _teacher

model.student = _student
model.teacher.model = _teacher
model.sampler.samplers[0].distribution = "normal_logit"
_set_epochs(train, dataloader, lr_multiplier, epochs=50, drop=40, batch=64)
optimizer.lr = 2e-4
train.output_dir = "output/dab_detr_r18_from_dab_detr_r50"
