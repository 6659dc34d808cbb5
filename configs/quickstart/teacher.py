"""The bundled teacher, trained on all 4,000 images with their labels."""

from .common import dataloader, lr_multiplier, optimizer, train
from .models import teacher as model

train.output_dir = "output/quickstart/teacher"
train.max_iter = 3000
optimizer.lr = 1e-3
dataloader.train.dataset.names = "quickstart_train"
dataloader.train.total_batch_size = 16
