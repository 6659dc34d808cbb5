"""The DAB-DETR on the same images, distilled from the larger DINO; both take boxes as queries."""

from .dab_alone import optimizer
from .dino_distilled import dataloader, lr_multiplier, model, train
from .dino_models import dab_student as _student

model.student = _student
train.output_dir = "output/quickstart_dino/dab_distilled"
