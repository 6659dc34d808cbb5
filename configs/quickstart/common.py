"""Settings of all quickstart configs: bundled data, AdamW, cosine schedule, no augmentation."""

from ..common.cosine import lr_multiplier
from ..common.data.quickstart import dataloader
from ..common.optim import optimizer
from ..common.train import train

train.output_dir = "output/quickstart/run"
train.max_iter = 1800
train.clip_grad.max_norm = 1.0
train.checkpointer.period = 400
train.checkpointer.max_to_keep = 1
train.eval_period = 300

# The tiny backbone is not pretrained, so it has the learning rate of all other parts.
optimizer.params.lr_factors = {}
optimizer.lr = 2e-3
lr_multiplier.warmup_iters = 100
