"""What a resumed run takes over from the run before, and what from its config.

The config decides: what differs from the run's own ``config.yaml`` is listed and takes effect. What
cannot, because the optimizer's state would not belong to it, is refused.
"""

import logging
import os
from typing import Any

import torch
from detectron2.solver import LRMultiplier
from omegaconf import DictConfig, OmegaConf

from ..errors import ConfigError, one_line
from .config.differences import differences
from .config.scaling import BATCH
from .metrics import go_back, renumber
from .optimizer_state import START_ANEW, raised_rate, set_position, used_rates
from .precision import keep_precision
from .run_folder import config_of_run, save_config

_log = logging.getLogger(__name__)
# What does not change a training: its folder, how long it may take, and notes about the config.
_IGNORED = (
    *("train.output_dir", "train.time_limit", "train.batch_scaling.", "train.classes"),
    *("train.progress", "train.loggers", "train.report"),
)


def converted(iterations: int, before: int | None, now: int | None) -> int:
    """The number of iterations of ``now`` images that see as many as those of ``before``.

    It is rounded down, so that no image is passed over. An unknown batch stays as it is.
    """
    if not (isinstance(before, int) and isinstance(now, int) and before > 0 and now > 0):
        return iterations
    return iterations * before // now


class ResumedRun:
    """The run that is resumed: how far it had come, with which batch, rates and config.

    Args:
        file: its checkpoint.
        cfg: the config that it is resumed with.

    Attributes:
        done: how many iterations were done, of ``batch`` images.
        batch: None where neither the checkpoint nor the run's config says it.
        changed: whether the config is another one than the run's own.

    Raises:
        ConfigError: the config has another optimizer.
    """

    def __init__(self, file: str, cfg: DictConfig):
        self.file = file
        self.done = 0
        self.batch: int | None = None
        self._now = cfg
        self._folder = os.path.dirname(file)
        self._before = config_of_run(self._folder)
        self._rates: list[float] = []
        self._base_rates: list[float] = []
        self._renumbered: int | None = None
        if self._before is not None:
            keep_start(self._before, cfg)
            keep_precision(self._before, cfg)
        found = changes(self._before, cfg) if self._before is not None else {}
        self.changed = bool(found)
        if found:
            lines = [
                f"  {key}: {one_line(old, 80)} -> {one_line(new, 80)}"
                for key, (old, new) in found.items()
            ]
            _log.warning(
                "The config differs from the run's own config.yaml; what is new takes effect from"
                " here on:\n%s",
                "\n".join(lines),
            )

    def restored(self, done: int, batch: int | None, optimizer: torch.optim.Optimizer) -> None:
        """Take note of what the checkpoint says, which has just been loaded."""
        self.done = done
        saved = OmegaConf.select(self._before, BATCH) if self._before is not None else None
        self._renumbered = saved or batch
        self.batch = batch or saved
        self._rates = used_rates(optimizer)
        self._base_rates = [group.get("initial_lr", 0.0) for group in optimizer.param_groups]

    def start(
        self, batch: int | None, scheduler: LRMultiplier, optimizer: torch.optim.Optimizer
    ) -> int:
        """Put the schedule where the run goes on with ``batch`` images; returns the iteration."""
        start = converted(self.done, self.batch, batch)
        if start != self.done:
            _log.warning(
                "The batch was %s and is %s: %d iterations, which saw %d images, count as %d.",
                *(self.batch, batch, self.done, self.done * (self.batch or 0), start),
            )
        set_position(scheduler, optimizer, start)
        raised = raised_rate(self._rates, optimizer, self._base_rates)
        if raised and start < self._now.train.max_iter:
            _log.warning(self._describe_raise(start, *raised))
        return start

    def _renumber_metrics(self) -> None:
        """Count the lines of ``metrics.json`` in today's batch."""
        before, now = self._renumbered, OmegaConf.select(self._now, BATCH)
        if before and now and before != now:
            copy = f"metrics_batch_{before}.json"
            renumber(self._folder, lambda done: converted(done, before, now), copy)

    def record(self, start: int) -> None:
        """Bring ``metrics.json`` and ``config.yaml`` up to what is trained from ``start`` on.

        Where nothing is left to train, they stay those of what was trained.
        """
        if start < self._now.train.max_iter or self._before is None:
            self._renumber_metrics()
            go_back(self._folder, start)
            save_config(self._now, self._folder, trained=self.done if self.changed else 0)
        elif self.changed:
            _log.warning("config.yaml stays as it was, because nothing is left to train.")

    def _describe_raise(self, start: int, before: float, now: float) -> str:
        words = (
            f"The schedule raises the learning rate again: it was {before:.3g}, and from iteration"
            f" {start} on it is {now:.3g}, because the config's schedule and length put it there"
        )
        if override := kept_milestones(self._before, self._now):
            return f"{words}. To keep its drops where they were, stop and resume with {override}"
        return f"{words}. If that is not meant, stop and change lr_multiplier or train.max_iter."


def changes(before: DictConfig, now: DictConfig) -> dict[str, tuple[Any, Any]]:
    """The settings that differ and can change a training.

    Raises:
        ConfigError: the optimizer is of another class.
    """
    found = {
        key: pair for key, pair in differences(before, now).items() if not key.startswith(_IGNORED)
    }
    if "optimizer._target_" in found:
        old, new = found["optimizer._target_"]
        raise ConfigError(
            f"The run was started with the optimizer {old}, and the config has {new}: {START_ANEW}"
        )
    return found


def keep_start(before: DictConfig, now: DictConfig) -> None:
    """Leave ``train.init_checkpoint`` as the run had it, because only its start has read it."""
    used, named = before.train.init_checkpoint, now.train.init_checkpoint
    if used != named:
        now.train.init_checkpoint = used
        _log.warning(
            "train.init_checkpoint=%s is not read, because a resumed run goes on from its own last"
            " checkpoint: to start from that file, set another train.output_dir.",
            named or "''",
        )


def kept_milestones(before: DictConfig | None, now: DictConfig) -> str:
    """The override that keeps the drops of a schedule of steps where they were; empty without."""
    if before is None:
        return ""
    milestones = OmegaConf.select(before, "lr_multiplier.milestones")
    if not milestones or OmegaConf.select(now, "lr_multiplier.milestones") is None:
        return ""
    lengths = [cfg.train.max_iter * (OmegaConf.select(cfg, BATCH) or 1) for cfg in (before, now)]
    moved = [milestone * lengths[0] / lengths[1] for milestone in milestones]
    if not all(0 < milestone < 1 for milestone in moved):
        return ""
    return f"lr_multiplier.milestones=[{','.join(f'{milestone:.9g}' for milestone in moved)}]"
