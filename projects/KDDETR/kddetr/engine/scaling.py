"""Scaling a config's length, periods and learning rate to another batch size.

``train.batch_scaling.reference`` is the batch size that the numbers of a config are for. Where
``dataloader.train.total_batch_size`` differs from it, the iterations are multiplied by
reference / batch, so that the run processes the same number of images, and ``optimizer.lr`` is
multiplied by a power of batch / reference.
"""

import math
from collections.abc import Collection

from omegaconf import DictConfig, OmegaConf

# The learning rate is multiplied by (batch / reference) ** power. "sqrt" is the rule of adaptive
# optimizers, whose update does not grow with the gradient: the mean over k times as many images has
# sqrt(k) times less noise, and a rate sqrt(k) times larger restores it (Malladi et al., On the SDEs
# and scaling rules for adaptive gradient algorithms, 2022; their rule also changes betas and eps,
# which the DETR family does not). It is also the ratio between the published command of KD-DETR
# (2e-4 at 8 processes of 8 images) and the DAB-DETR project (1e-4 at 16 images), both with AdamW.
# "linear" is the rule of SGD (Goyal et al., 2017).
LEARNING_RATE_RULES = {"sqrt": 0.5, "linear": 1.0, "none": 0.0}

# The keys that count iterations and are multiplied.
LENGTHS = (
    "train.max_iter",
    "train.eval_period",
    "train.checkpointer.period",
    "lr_multiplier.warmup_iters",
)
_BATCH = "dataloader.train.total_batch_size"


def scale_to_batch(cfg: DictConfig, fixed: Collection[str] = ()) -> None:
    """Scale a config to its own batch size, in place.

    Afterwards the reference is that batch size, so that a second call, or loading the config that a
    run has saved, changes nothing. ``train.batch_scaling.note`` then lists the changes.

    Args:
        cfg: a config with a complete ``train`` section, whose values have been checked.
        fixed: dotted keys that stay as they are, because they were overridden.
    """
    scaling, batch = cfg.train.batch_scaling, OmegaConf.select(cfg, _BATCH)
    if not isinstance(batch, int) or batch < 1 or scaling.reference in (0, batch):
        return
    ratio = batch / scaling.reference
    changes = _lengths(cfg, ratio, whole_periods="train.eval_period" not in fixed)
    rate = OmegaConf.select(cfg, "optimizer.lr")
    if rate is not None:
        power = LEARNING_RATE_RULES[scaling.learning_rate]
        changes["optimizer.lr"] = float(f"{rate * ratio**power:.6g}")
    changed = []
    for key, value in changes.items():
        before = OmegaConf.select(cfg, key)
        if key in fixed:
            changed.append(f"{key} stays {before:g}")
        elif value != before:
            OmegaConf.update(cfg, key, value)
            changed.append(f"{key} {before:g} -> {value:g}")
    scaling.note = f"from batch {scaling.reference} to {batch}: {', '.join(changed)}"
    scaling.reference = batch


def _lengths(cfg: DictConfig, ratio: float, *, whole_periods: bool) -> dict[str, int]:
    """The values that count iterations, by key, for a batch that is ``ratio`` times as large."""
    found = {}
    for key in LENGTHS:
        if length := OmegaConf.select(cfg, key):
            found[key] = max(1, math.floor(length / ratio + 0.5))
    period = cfg.train.eval_period
    if period and whole_periods and cfg.train.max_iter % period == 0:
        # A whole number of periods stays one; otherwise the last evaluation would follow another
        # one after a few iterations.
        found["train.max_iter"] = cfg.train.max_iter // period * found["train.eval_period"]
    return found
