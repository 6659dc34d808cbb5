"""Optimizer and schedule of RT-DETR and D-FINE: AdamW at one rate after a short warm-up, without a
drop, and no weight decay of norms.

The published figures are those of the moving average of the weights, which is evaluated as
ema/bbox/AP and saved as model_ema.pth.
"""

import math

from .coco_epochs import IMAGES as _IMAGES
from .optim import lr_multiplier, optimizer
from .train import train

optimizer.params.weight_decay_norm = 0.0
lr_multiplier.milestones = []
train.clip_grad.max_norm = 0.1
train.ema.decay = 0.9999
train.ema.warmup = 2000


def scales(repeat: int) -> list[int]:
    """The sides of the squares that a batch is resized to in multi-scale training, 640 so many
    times.
    """
    return [*range(480, 640, 32), *[640] * repeat, *range(672, 801, 32)]


def set_epochs(train, dataloader, lr_multiplier, *, epochs: int, batch: int, warmup: int) -> None:
    """Train for ``epochs`` of COCO with ``batch`` images an iteration; ``warmup`` iterations."""
    iterations = math.ceil(_IMAGES / batch)
    dataloader.train.total_batch_size = batch
    train.batch_scaling.reference = batch
    train.max_iter = epochs * iterations
    train.eval_period = train.checkpointer.period = iterations
    lr_multiplier.warmup_iters = warmup
