"""A distillation weight that follows a schedule: ``model.weight_schedule`` of a config."""

from typing import Any, Protocol, runtime_checkable

from detectron2.engine import HookBase
from torch import nn

WEIGHT = "distillation_weight"  # in the log


@runtime_checkable
class Scheduled(Protocol):
    """A distiller whose weight depends on the progress, see :class:`~kddetr.KDDETR`."""

    weight_schedule: Any
    progress: float
    current_weight: float


def weight_hooks(model: nn.Module, max_iter: int) -> list[HookBase]:
    """The hook that a distiller with a schedule needs in a run of ``max_iter`` iterations."""
    if isinstance(model, Scheduled) and model.weight_schedule is not None:
        return [WeightScheduleHook(model, max_iter)]
    return []


class WeightScheduleHook(HookBase):
    """Tells a distiller how much of the training is done, and logs its weight.

    Args:
        model: the distiller.
        max_iter: length of the run.
    """

    def __init__(self, model: Scheduled, max_iter: int):
        self._model = model
        self._max_iter = max_iter

    def before_step(self) -> None:
        self._model.progress = self.trainer.iter / self._max_iter

    def after_step(self) -> None:
        weight = self._model.current_weight
        self.trainer.storage.put_scalar(WEIGHT, weight, smoothing_hint=False)
