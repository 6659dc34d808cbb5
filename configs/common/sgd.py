"""SGD with the settings of Detectron2's own recipes; the rate is for 16 images."""

import torch
from detectron2.config import LazyCall as L

from kddetr.engine import parameter_groups, step_schedule

optimizer = L(torch.optim.SGD)(
    params=L(parameter_groups)(base_lr="${..lr}", weight_decay_norm=0.0),
    lr=0.02,
    momentum=0.9,
    weight_decay=1e-4,
)
lr_multiplier = L(step_schedule)(
    max_iter="${train.max_iter}",
    milestones=None,  # see coco_iterations.py
    gamma=0.1,
    warmup_iters=1000,
    warmup_factor=0.001,
)
