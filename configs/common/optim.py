"""AdamW with the settings of the DETR family, and one drop of the rate at 80 % of the run."""

import torch
from detectron2.config import LazyCall as L

from kddetr.engine import parameter_groups, step_schedule

optimizer = L(torch.optim.AdamW)(
    params=L(parameter_groups)(base_lr="${..lr}", lr_factors={"backbone": 0.1}),
    lr=1e-4,
    betas=[0.9, 0.999],
    weight_decay=1e-4,
    fused=True,  # one kernel for all parameters instead of a dozen for each
)
lr_multiplier = L(step_schedule)(
    max_iter="${train.max_iter}", milestones=[0.8], gamma=0.1, warmup_iters=0
)
