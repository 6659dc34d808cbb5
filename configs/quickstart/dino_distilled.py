"""The small DINO on the same images, distilled from the larger DINO."""

from .dino_alone import optimizer, train
from .dino_models import student as _student
from .dino_models import teacher as _teacher
from .distilled import dataloader, lr_multiplier, model

model.student = _student
model.teacher.detector.model = _teacher
model.teacher.detector.checkpoint = "output/quickstart_dino/teacher/model_final.pth"
train.output_dir = "output/quickstart_dino/dino_distilled"
