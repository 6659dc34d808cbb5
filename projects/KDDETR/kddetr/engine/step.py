"""One training step: forward in mixed precision, backward, clip, check, update.

Detectron2's AMPTrainer has float16 on CUDA only and does not clip. This step has bfloat16 on any
device too, and stops the run before an infinite or NaN loss reaches the weights.
"""

import contextlib
import logging
import math
import time
from collections import defaultdict
from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from detectron2.engine.train_loop import SimpleTrainer
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage
from omegaconf import DictConfig
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ..checkpoint import deployable
from ..errors import CheckpointError, ConfigError, DivergedError, UsageError
from ..returned import part_name, scalar_losses, without_gradient
from ..structures import Detector
from .accumulation import count_normalisers, parts_of
from .optimizer_state import check_alike
from .precision import amp_dtype
from .seeding import seed_everything
from .watch import GAP_PREFIXES, RATIO
from .weight_schedule import WEIGHT
from .writers import GROUP_PREFIX, loss_group

_log = logging.getLogger(__name__)
# Names of other values of a step.
RECORDED = ("grad_norm", RATIO, WEIGHT, "total_loss", "data_time", "train_seconds", "time", "lr")
PREFIXES = (GROUP_PREFIX, *GAP_PREFIXES)


def step_settings(cfg: DictConfig, model: nn.Module, device: torch.device) -> dict[str, Any]:
    """The arguments of a :class:`StepTrainer` that a config decides.

    Args:
        cfg: of the run.
        model: not wrapped for several processes.
        device: of the model.
    """
    clip = cfg.train.clip_grad
    return {
        "seed": cfg.train.seed,
        "amp_dtype": amp_dtype(cfg.train.amp, device, model),
        "max_norm": clip.max_norm,
        "norm_type": clip.norm_type,
        "accumulate": cfg.train.accumulate,
    }


class StepTrainer(SimpleTrainer):
    """Runs the iterations of a training; hooks belong to the :class:`Trainer` around it.

    Args:
        model: returns a dictionary of weighted scalar losses for a batch. A constant among them,
            which cannot train anything, is logged under its name and is not part of the loss.
        data_loader: endless iterable of batches.
        optimizer: over the model's trainable parameters.
        seed: of the run; the random numbers of a step depend on (seed, iteration, rank).
        amp_dtype: ``torch.bfloat16`` or ``torch.float16`` for mixed precision, None for float32.
        max_norm: the norm that the whole model's gradient is clipped to; None or 0: no clipping.
        norm_type: order of that norm.
        accumulate: in how many parts a batch goes through the model, see :mod:`.accumulation`.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        data_loader: Iterable[list[dict]],
        optimizer: torch.optim.Optimizer,
        seed: int,
        amp_dtype: torch.dtype | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        accumulate: int = 1,
    ):
        super().__init__(model, data_loader, optimizer)
        self._seed = seed
        self._max_norm = max_norm
        self._norm_type = norm_type
        self._accumulate = accumulate
        self._device_type = next(model.parameters()).device.type
        self._known_constants: set[str] = set()  # that have been warned of
        self.train_seconds = 0.0  # in steps, without evaluation and checkpoints
        self.amp_dtype = amp_dtype

    @property
    def amp_dtype(self) -> torch.dtype | None:
        """The type of mixed precision; None for float32. Setting it makes a new loss scale."""
        return self._amp_dtype

    @amp_dtype.setter
    def amp_dtype(self, dtype: torch.dtype | None) -> None:
        self._amp_dtype = dtype
        # Gradients in bfloat16 do not underflow, so only float16 needs a scaled loss.
        self.grad_scaler = torch.amp.GradScaler(self._device_type, enabled=dtype is torch.float16)

    def run_step(self) -> None:
        """One iteration.

        Raises:
            DivergedError: a loss or the gradient is not finite; the weights are not changed.
            ConfigError: the model returns no loss for the batch, or has nothing to learn from it.
            UsageError: what it returns are not scalar losses, or none of them has a gradient.
        """
        start = time.perf_counter()
        # For loaders that draw from the global generators.
        seed_everything(self._seed, self.iter, comm.get_rank(), 0)
        batch = next(self._data_loader_iter)
        data_time = time.perf_counter() - start
        self.optimizer.zero_grad()
        losses, constants = self._backward(batch)
        # Without a gradient, the optimizer leaves a weight as it is: it does not decay either.
        for parameter in getattr(self._unwrapped, "idle_parameters", list)():
            parameter.grad = None
        self.grad_scaler.unscale_(self.optimizer)
        metrics = self._clip_and_measure(losses)
        self._check(metrics, batch)
        self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()
        # The losses have been read from the device above, so the step is over.
        self.train_seconds += time.perf_counter() - start
        _record(metrics, constants, data_time, self.train_seconds)

    def _backward(self, batch: list[dict]) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
        """The losses and constants of a batch, after its backward pass; of a batch in parts the
        means over the parts.
        """
        if self._accumulate == 1:
            self._seed_part(0)
            return self._backward_of_part(batch)
        parts = parts_of(batch, self._accumulate)
        with self._autocast():
            whole = count_normalisers(self._unwrapped, parts, self._seed_part, iteration=self.iter)
        means: tuple[dict, dict] = ({}, {})
        for number, part in enumerate(parts):
            self._seed_part(number)
            with whole.using(number), self._without_exchange(number + 1 < len(parts)):
                found = self._backward_of_part(part)
            for mean, values in zip(means, found, strict=True):
                for name, value in values.items():
                    value = value.detach() if isinstance(value, torch.Tensor) else value
                    mean[name] = mean.get(name, 0) + value / len(parts)
        return means

    def _backward_of_part(
        self, part: list[dict]
    ) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
        with self._autocast():
            losses, constants = self._losses(part)
            total = sum(losses.values())
        # The gradient of a batch is the mean of those of its parts.
        self.grad_scaler.scale(total / self._accumulate).backward()
        return losses, constants

    def _without_exchange(self, wanted: bool) -> AbstractContextManager:
        """Inside, processes keep their gradients; with the last part of a batch, they exchange the
        sums of all parts.
        """
        is_parallel = isinstance(self.model, DistributedDataParallel)
        return self.model.no_sync() if wanted and is_parallel else contextlib.nullcontext()

    def _autocast(self) -> torch.autocast:
        enabled = self._amp_dtype is not None
        return torch.autocast(self._device_type, dtype=self._amp_dtype, enabled=enabled)

    def _seed_part(self, number: int) -> None:
        """Seed once more, after the loader, whose draws the model then does not depend on."""
        further = [number] if number else []
        seed_everything(self._seed, self.iter, comm.get_rank(), 1, *further)

    @property
    def _unwrapped(self) -> nn.Module:
        """The model without DistributedDataParallel."""
        return getattr(self.model, "module", self.model)

    def _losses(self, batch: list[dict]) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
        """The losses of the model that train it, and the constants that it returned beside them."""
        model = self._unwrapped
        returned = self.model(batch)
        losses = scalar_losses(returned, model, next(self.model.parameters()).device)
        if not losses:
            raise self._without_labels()
        if taken := [name for name in losses if name in RECORDED or name.startswith(PREFIXES)]:
            raise UsageError(
                f"{part_name(model)} returned a loss under the name {taken[0]!r}, under which the"
                " log has something else: give it another name."
            )
        constants = {name: losses.pop(name).item() for name in without_gradient(losses)}
        if not any(loss.requires_grad for loss in losses.values()):
            raise UsageError(
                f"None of the losses of {part_name(model)} has a gradient"
                f" ({', '.join([*losses, *constants])}): compute them from its trainable"
                " parameters, without detach or torch.no_grad."
            )
        if constants.keys() - self._known_constants:
            self._known_constants.update(constants)
            _log.warning(
                "%s returned %s without a gradient: only logged, and not part of the loss.",
                part_name(model),
                ", ".join(constants),
            )
        return losses, constants

    def state_dict(self) -> dict:
        """The optimizer's state, and the loss scale of float16."""
        state = {**super().state_dict(), "train_seconds": self.train_seconds}
        if scale := self.grad_scaler.state_dict():  # empty without float16
            state["grad_scaler"] = scale
        return state

    def load_state_dict(self, state: dict) -> None:
        """Load :meth:`state_dict`; the loss scale starts anew where the run was not in float16.

        Raises:
            CheckpointError: the optimizer of the checkpoint has other parameter groups.
        """
        try:
            super().load_state_dict(state)
        except ValueError as error:
            raise CheckpointError(
                f"The optimizer of the checkpoint does not fit that of the config ({error}): resume"
                " with the config that the run was started with."
            ) from error
        check_alike(self.optimizer)
        self.train_seconds = float(state.get("train_seconds", 0.0))
        if state.get("grad_scaler"):
            self.grad_scaler.load_state_dict(state["grad_scaler"])

    def _clip_and_measure(self, losses: dict[str, torch.Tensor]) -> dict[str, float]:
        """Clip the gradient, and read the losses and the norm before clipping, all at once."""
        measured = {name: loss.detach().float() for name, loss in losses.items()}
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        # Measured even without clipping: the gradient of a finite loss can be infinite, and it is
        # the same in all processes.
        limit = self._max_norm or math.inf
        norm = nn.utils.clip_grad_norm_(parameters, limit, norm_type=self._norm_type)
        measured["grad_norm"] = norm.float()
        return dict(zip(measured, torch.stack(list(measured.values())).tolist()))

    def _without_labels(self) -> ConfigError:
        return ConfigError(
            f"There is no loss in iteration {self.iter}, because none of its images has labels:"
            " give dataloader.train labelled images, or distil."
        )

    def _check(self, metrics: dict[str, float], batch: list[dict]) -> None:
        """Raise an error where the losses are not finite, or 0 for want of any labels."""
        if not any(metrics.values()):  # the gradient, which is that of all processes, included
            # A distillation may have a batch without points, and a detector of another kind may
            # read its labels under another key.
            alone = not any("/" in name for name in metrics)
            known = isinstance(deployable(self.model), Detector)
            if alone and known and not any("instances" in x for x in batch):
                raise self._without_labels()
        if self.grad_scaler.is_enabled() and not math.isfinite(metrics["grad_norm"]):
            del metrics["grad_norm"]  # the scaler skips such a step and lowers the scale
        bad = {name: value for name, value in metrics.items() if not math.isfinite(value)}
        if not bad:
            return
        names = [str(image.get("file_name", image.get("image_id", "unnamed"))) for image in batch]
        rates = sorted({group["lr"] for group in self.optimizer.param_groups})
        raise DivergedError(
            f"Training stopped at iteration {self.iter}, before the weights were changed:"
            f" {', '.join(f'{name} is {value}' for name, value in bad.items())}; images"
            f" {', '.join(names)}; learning rates {', '.join(f'{rate:.3g}' for rate in rates)}."
            " Lower optimizer.lr or train.clip_grad.max_norm, or check the annotations of these"
            " images; --resume continues from the last checkpoint."
        )


def _record(
    metrics: dict[str, float], constants: dict[str, float], data_time: float, train_seconds: float
) -> None:
    """Store the mean of the metrics and of the constants over the processes, and sums of the losses
    by group, on the main process.
    """
    gathered = comm.gather((metrics, constants, data_time))
    if not comm.is_main_process():
        return
    storage = get_event_storage()
    storage.put_scalar("train_seconds", train_seconds, smoothing_hint=False)
    measured, apart, waited = zip(*gathered, strict=True)
    storage.put_scalar("data_time", max(waited))
    mean = _mean(measured)
    storage.put_scalars(**{n: v for n, v in _mean(apart).items() if n not in mean})
    if "grad_norm" in mean:
        storage.put_scalar("grad_norm", mean.pop("grad_norm"))
    groups: dict[str, float] = defaultdict(float)
    for name, value in mean.items():
        groups[loss_group(name)] += value
    storage.put_scalar("total_loss", sum(mean.values()))
    storage.put_scalars(**{GROUP_PREFIX + group: value for group, value in groups.items()}, **mean)


def _mean(gathered: Iterable[dict[str, float]]) -> dict[str, float]:
    """The mean of each value over the processes that have it."""
    gathered = list(gathered)
    names = dict.fromkeys(name for one in gathered for name in one)
    return {name: float(np.mean([one[name] for one in gathered if name in one])) for name in names}
