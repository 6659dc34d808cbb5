"""The moving average of a detector's weights: ``train.ema`` of a config.

The average is evaluated beside the trained weights, under names such as ``ema/bbox/AP``, and saved
beside them as ``model_ema.pth``, an ordinary file of the detector. It does not change the training.
"""

import logging
import math
from collections import defaultdict
from typing import Any

import torch
from detectron2.engine import HookBase
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ..checkpoint import Checkpointer, deployable
from ..errors import StorageError

FILE = "model_ema"
_log = logging.getLogger(__name__)


class MovingAverage(AveragedModel):
    """An exponential moving average of the weights and statistics of a detector.

    After update t (1, 2, ...) the average is d * average + (1 - d) * weights, with
    d = decay * (1 - exp(-t / warmup)) as in RT-DETR, or d = decay without a warm-up. The first
    update copies the weights. Buffers with fractions, such as the statistics of a batch
    normalisation, are averaged too; counters are copied.

    Args:
        model: the detector, or a distiller around it, of which the student is averaged.
        decay: in (0, 1).
        warmup: iterations; 0: none.

    Attributes:
        module: the detector with the averaged weights.
    """

    def __init__(self, model: nn.Module, *, decay: float, warmup: float = 0):
        super().__init__(deployable(model), use_buffers=True)
        self.module.eval().requires_grad_(False)
        self._decay, self._warmup = decay, warmup

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Take today's weights into the average.

        The method of PyTorch sends the number of updates to the GPU, which waits for it. Here it
        stays on the CPU.

        Args:
            model: as the constructor got it.
        """
        self.n_averaged += 1
        if (update := int(self.n_averaged)) == 1:
            self.copy_weights(model)
            return
        groups: dict[Any, tuple[list[Tensor], list[Tensor]]] = defaultdict(lambda: ([], []))
        for mine, theirs in zip(_tensors(self.module), _tensors(deployable(model)), strict=True):
            if mine.is_floating_point():  # tensors of one kind are averaged in one kernel
                group = groups[mine.device, mine.dtype]
                group[0].append(mine)
                group[1].append(theirs)
            else:
                mine.copy_(theirs)
        average = get_ema_multi_avg_fn(self.decay_of(update))
        for mine, theirs in groups.values():
            average(mine, theirs, None)

    @torch.no_grad()
    def copy_weights(self, model: nn.Module) -> None:
        """Begin with today's weights, as the first update does.

        Args:
            model: as the constructor got it.
        """
        for mine, theirs in zip(_tensors(self.module), _tensors(deployable(model)), strict=True):
            mine.copy_(theirs)

    def decay_of(self, update: int) -> float:
        """The share of the average that stays at an update, counted from 1."""
        rise = 1 - math.exp(-update / self._warmup) if self._warmup else 1.0
        return self._decay * rise


def _tensors(module: nn.Module) -> list[Tensor]:
    return [x.detach() for x in (*module.parameters(), *module.buffers())]


def moving_average(ema: DictConfig, model: nn.Module) -> MovingAverage | None:
    """The average that the section ``train.ema`` of a config asks for; None where it asks for
    none.
    """
    return MovingAverage(model, decay=ema.decay, warmup=ema.warmup) if ema.decay else None


class AverageHook(HookBase):
    """Updates the average after every step, and saves it with every checkpoint.

    Its state is in the checkpoints of the run, so that a resumed run has the average of an
    uninterrupted one. It comes before the hooks that save and evaluate.

    Args:
        average: of the weights that are trained.
        checkpointer: saves the average alone, on the main process.
        period: iterations between two checkpoints.
    """

    def __init__(self, average: MovingAverage, checkpointer: Checkpointer, period: int):
        self._average = average
        self._checkpointer = checkpointer
        self._period = period
        self._saved = 0  # after so many iterations

    def before_train(self) -> None:
        if int(self._average.n_averaged):
            return
        # An evaluation that was missed is made up for before the first step.
        self._average.copy_weights(self.trainer.unwrapped)
        if self.trainer.start_iter > 0:
            _log.warning(
                "The checkpoint has no average of the weights: it begins at iteration %d"
                " (train.ema).",
                self.trainer.start_iter,
            )

    def after_step(self) -> None:
        self._average.update_parameters(self.trainer.unwrapped)
        done = self.trainer.iter + 1
        if done % self._period == 0 or done == self.trainer.max_iter:
            self._save(done)

    def after_train(self) -> None:
        """Save where the training ended early and not at a checkpoint. Where nothing was trained,
        the file stays, whose card has the results.
        """
        trainer = self.trainer
        trained = trainer.done > trainer.start_iter and trainer.iter >= trainer.max_iter
        if trained and self._saved != trainer.done:
            self._save(trainer.done)

    def _save(self, done: int) -> None:
        try:
            self._checkpointer.save_weights(FILE, iteration=done - 1)
            self._saved = done
        except StorageError as error:
            _log.warning("%s The run goes on without saving the averaged weights.", error)

    def state_dict(self) -> dict[str, Any]:
        return self._average.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load the average of the checkpoint that a run is resumed from."""
        self._average.load_state_dict(state)
