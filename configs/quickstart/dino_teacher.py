"""A DINO teacher, trained on all 4,000 images with their labels."""

from .dino_models import teacher as model
from .teacher import dataloader, lr_multiplier, optimizer, train

train.output_dir = "output/quickstart_dino/teacher"
