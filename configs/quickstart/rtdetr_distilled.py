"""The same RT-DETRv2 on the same images, distilled from the bundled detection transformer."""

from .distilled import dataloader, lr_multiplier, model
from .rtdetr_alone import optimizer, train
from .rtdetr_models import student as _student

model.student = _student
train.output_dir = "output/realtime/distilled"
