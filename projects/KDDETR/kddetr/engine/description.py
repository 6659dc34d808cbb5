"""One line about a training, for the log."""

from typing import TYPE_CHECKING

from detectron2.utils import comm

from ..checkpoint import deployable
from .precision import dtype_name

if TYPE_CHECKING:
    from .trainer import Trainer


def describe(trainer: "Trainer") -> str:
    """The model, the optimizer, the batch, the devices and the length of a training."""
    model = trainer.unwrapped
    parameters = list(model.parameters())
    total = sum(p.numel() for p in parameters)
    trainable = sum(p.numel() for p in parameters if p.requires_grad)
    groups = ", ".join(
        f"{len(g['params'])} tensors at {g['initial_lr']:.3g}"
        for g in trainer.optimizer.param_groups
    )
    name, inner = type(model).__name__, deployable(model)
    if inner is not model:
        name += f" around {type(inner).__name__}"
    parts = trainer.cfg.train.accumulate
    batch = f"{trainer.batch or 'unknown'}{f' in {parts} parts' if parts > 1 else ''}"
    return (
        f"{name}: {trainable / 1e6:.2f} M of {total / 1e6:.2f} M parameters trainable;"
        f" {type(trainer.optimizer).__name__} with {groups}; batch {batch} on"
        f" {comm.get_world_size()} x {parameters[0].device.type},"
        f" {dtype_name(trainer._trainer.amp_dtype)}; {trainer.max_iter} iterations"
    )
