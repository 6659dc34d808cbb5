"""The state of an optimizer and its schedule in a resumed run.

The moments come from the checkpoint, the options (rates, weight decay, betas) from the config.
"""

import inspect
import itertools
from collections.abc import Sequence
from typing import Any

import torch
from detectron2.solver import LRMultiplier
from torch import nn

from ..errors import CheckpointError

START_ANEW = (
    "resume with the config that the run was started with, or start a new run from its weights with"
    " train.init_checkpoint=FILE and another train.output_dir."
)
_RAISED = 1.05  # a larger factor on the rate than this one is no matter of rounding


def optimizer_card(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """What an optimizer's state belongs to: its class, and the parameters of its groups."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = [[names.get(id(p), "") for p in group["params"]] for group in optimizer.param_groups]
    return {"optimizer": type(optimizer).__qualname__, "parameters": groups}


def check_card(saved: dict[str, Any], own: dict[str, Any]) -> None:
    """Check that the state of an optimizer fits the one of the config.

    Args:
        saved: of the checkpoint; entries that an earlier version did not save are not compared.
        own: of the config, see :func:`optimizer_card`.

    Raises:
        CheckpointError: another class of optimizer, or other parameters in its groups.
    """
    before, now = saved.get("optimizer", own["optimizer"]), own["optimizer"]
    if before != now:
        raise CheckpointError(
            f"The checkpoint has the state of the optimizer {before}, and the config has {now}:"
            f" {START_ANEW}"
        )
    groups = saved.get("parameters", own["parameters"])
    if groups == own["parameters"]:
        return
    where = [
        {name: number for number, group in enumerate(side) for name in group}
        for side in (groups, own["parameters"])
    ]
    moved = [n for n in dict.fromkeys([*where[0], *where[1]]) if where[0].get(n) != where[1].get(n)]
    raise CheckpointError(
        "The optimizer of the config has other parameter groups than that of the checkpoint"
        f" ({len(own['parameters'])} and {len(groups)}; {', '.join(moved[:3]) or 'their order'} and"
        f" {max(len(moved) - 3, 0)} more parameters differ): {START_ANEW}"
    )


def check_alike(optimizer: torch.optim.Optimizer) -> None:
    """Check that a loaded state has the same entries for all parameters of a kind.

    A damaged entry would otherwise end in an error of PyTorch at the first step, or in none.

    Raises:
        ValueError: a parameter has other entries than another of as many dimensions, or some of
            them only. Optimizers such as Adafactor keep others for vectors than for matrices.
    """
    first: dict[Any, dict[str, Any]] = {}
    for parameter, entries in optimizer.state.items():
        kinds = {name: _kind(value, parameter) for name, value in entries.items()}
        other = first.setdefault((parameter.dim(), parameter.dtype), kinds)
        for name in dict.fromkeys([*other, *kinds]):
            if kinds and other and kinds.get(name) != other.get(name):
                raise ValueError(f"the optimizer's {name} is not of one kind for all parameters")
    names = {tuple(kinds) for kinds in first.values()}
    for some, others in itertools.permutations(names, 2):
        if some and {*some} < {*others}:
            lacking = ", ".join(sorted({*others} - {*some}))
            raise ValueError(f"the optimizer's {lacking} is missing for some of the parameters")


def _kind(value: Any, parameter: nn.Parameter) -> Any:
    if not isinstance(value, torch.Tensor):
        return type(value)
    return value.dtype, value.layout, value.dim(), value.shape == parameter.shape


def group_options(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """The options of the optimizer's groups."""
    return [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups]


def apply_options(optimizer: torch.optim.Optimizer, options: Sequence[dict[str, Any]]) -> None:
    """Give a loaded optimizer the options that the config has, such as weight decay and betas.

    What the optimizer itself keeps among its options, as schedule-free ones do, stays; the
    schedule sets ``lr``.
    """
    known = set(inspect.signature(type(optimizer).__init__).parameters) | {"initial_lr"}
    for group, wanted in zip(optimizer.param_groups, options, strict=True):
        group.update({k: v for k, v in wanted.items() if k in known - {"lr"}})
        on_device = group.get("fused") or group.get("capturable")
        for parameter in group["params"]:
            # The count of steps is read on the parameter's device by some kernels, else on the CPU.
            state = optimizer.state.get(parameter, {})
            if isinstance(state.get("step"), torch.Tensor):
                state["step"] = state["step"].to(parameter.device if on_device else "cpu")


def used_rates(optimizer: torch.optim.Optimizer) -> list[float]:
    """The learning rates of the groups, as the schedule has set them."""
    return [float(group["lr"]) for group in optimizer.param_groups]


def set_position(scheduler: LRMultiplier, optimizer: torch.optim.Optimizer, iteration: int) -> None:
    """Put a schedule, and the rates that it sets, at an iteration."""
    scheduler.base_lrs = [group["initial_lr"] for group in optimizer.param_groups]
    scheduler.last_epoch = iteration
    for group, rate in zip(optimizer.param_groups, scheduler.get_lr(), strict=True):
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate
    scheduler._last_lr = used_rates(optimizer)


def raised_rate(
    used: Sequence[float], optimizer: torch.optim.Optimizer, before_base: Sequence[float]
) -> tuple[float, float] | None:
    """The rate so far and the rate from now on, if the schedule raises it; else None.

    Args:
        used: rates of the groups in the checkpoint.
        optimizer: with the rates from now on.
        before_base: rates of the groups in the checkpoint before the schedule multiplied them.
    """
    for group, rate, base in zip(optimizer.param_groups, used, before_base, strict=True):
        now = float(group["lr"])
        if base > 0 and group["initial_lr"] > 0:
            factors = rate / base, now / group["initial_lr"]
            if factors[1] > factors[0] * _RAISED:
                return rate, now
    return None
