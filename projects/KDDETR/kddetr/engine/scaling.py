"""One place where a recipe's numbers follow the batch: say the batch, and the length of the run,
its periods and its learning rate are those of the same recipe at that batch.

A recipe says for which batch its numbers are (`train.batch_scaling.reference`). Where
`dataloader.train.total_batch_size` is another, the iterations shrink or grow inversely, so that as
many images are seen, and `optimizer.lr` is multiplied by a power of the ratio of the batches.
"""

import math
from collections.abc import Collection

from omegaconf import DictConfig, OmegaConf

__all__ = ["LEARNING_RATE_RULES", "scale_to_batch"]

# Learning rate times (batch / reference) ** power. "sqrt" is the rule of adaptive optimizers, whose
# update does not grow with the gradient: averaging k times as many images makes its noise sqrt(k)
# times smaller, and a rate that much larger restores it (Malladi et al., On the SDEs and scaling
# rules for adaptive gradient algorithms, 2022; their rule also moves betas and eps, which the
# DETR family leaves alone). It is what the published commands of KD-DETR do, 1e-4 at 16 images and
# 2e-4 at 64, with AdamW. "linear" is the rule of SGD (Goyal et al., 2017).
LEARNING_RATE_RULES = {"sqrt": 0.5, "linear": 1.0, "none": 0.0}

_LENGTHS = (
    "train.max_iter",
    "train.eval_period",
    "train.checkpointer.period",
    "lr_multiplier.warmup_iters",
)
_BATCH = "dataloader.train.total_batch_size"


def scale_to_batch(cfg: DictConfig, fixed: Collection[str] = ()) -> None:
    """Make a config's numbers those of its own batch, in place.

    Afterwards the config's batch is its reference, so that a second call, or loading the config
    that a run has saved, changes nothing; `train.batch_scaling.note` says what was done.

    Args:
        cfg: a config with a complete `train` section, whose values have been checked.
        fixed: dotted keys that were said on purpose (overrides) and stay as they are.
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
    said = []
    for key, value in changes.items():
        before = OmegaConf.select(cfg, key)
        if key in fixed:
            said.append(f"{key} stays {before:g}")
        elif value != before:
            OmegaConf.update(cfg, key, value)
            said.append(f"{key} {before:g} -> {value:g}")
    scaling.note = f"from batch {scaling.reference} to {batch}: {', '.join(said)}"
    scaling.reference = batch


def _lengths(cfg: DictConfig, ratio: float, *, whole_periods: bool) -> dict[str, int]:
    """Everything that counts iterations, by key, at a batch `ratio` times as large."""
    found = {}
    for key in _LENGTHS:
        if length := OmegaConf.select(cfg, key):
            found[key] = max(1, math.floor(length / ratio + 0.5))
    period = cfg.train.eval_period
    if period and whole_periods and cfg.train.max_iter % period == 0:
        # Whole epochs stay whole, else one evaluation follows another after a few iterations.
        found["train.max_iter"] = cfg.train.max_iter // period * found["train.eval_period"]
    return found
