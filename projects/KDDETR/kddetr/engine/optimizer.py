"""Parameter groups of an optimizer: learning rate and weight decay of every trainable parameter.

Detection transformers are trained with a smaller rate for the backbone and for sampling points.
Parameters are selected by a part of their name, which also works inside of a distiller
(``student.backbone...``).
"""

from collections.abc import Mapping
from typing import Any

from torch import nn

from ..ranges import not_negative

# The first is the base class of batch and instance normalisation.
_NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)


def parameter_groups(
    model: nn.Module,
    base_lr: float,
    lr_factors: Mapping[str, float] | None = None,
    weight_decay_norm: float | None = None,
    weight_decay_bias: float | None = None,
) -> list[dict[str, Any]]:
    """Sort a model's trainable parameters into groups for an optimizer.

    Args:
        model: the module to train; frozen parameters are left out.
        base_lr: learning rate of parameters without a factor.
        lr_factors: from a part of a parameter's name to a factor on ``base_lr``. Where several
            parts occur in a name, the longest decides, and of equally long ones the first.
        weight_decay_norm: weight decay of normalisation layers; None: that of the optimizer.
        weight_decay_bias: weight decay of other biases; None: that of the optimizer.

    Returns:
        Groups with ``params``, ``lr`` and, where it differs, ``weight_decay``, in order of
        appearance.

    Raises:
        ValueError: a key of ``lr_factors`` occurs in no parameter's name, or no parameter is
            trainable.
    """
    not_negative(base_lr=base_lr, **(factors := dict(lr_factors or {})))
    not_negative(weight_decay_norm=weight_decay_norm or 0, weight_decay_bias=weight_decay_bias or 0)
    names = [name for name, _ in model.named_parameters()]
    idle = [part for part in factors if not any(part in name for name in names)]
    if idle:
        raise ValueError(
            f"lr_factors names {', '.join(idle)}, which occurs in no parameter's name of the"
            f" {type(model).__name__}; its parts are"
            f" {', '.join(sorted({n.split('.')[0] for n in names}))}; correct the name, or remove"
            " it from lr_factors."
        )
    groups: dict[tuple, dict[str, Any]] = {}
    for name, parameter in model.named_parameters():  # a shared parameter once
        if not parameter.requires_grad:
            continue
        matches = [part for part in factors if part in name]
        options = {"lr": base_lr * (factors[max(matches, key=len)] if matches else 1.0)}
        module_name, _, own_name = name.rpartition(".")
        if isinstance(model.get_submodule(module_name), _NORMS):
            decay = weight_decay_norm
        else:
            decay = weight_decay_bias if own_name == "bias" else None
        if decay is not None:
            options["weight_decay"] = decay
        group = groups.setdefault(tuple(options.items()), {"params": [], **options})
        group["params"].append(parameter)
    if not groups:
        raise ValueError(
            f"The {type(model).__name__} has no trainable parameter; lower freeze_at, or set"
            " requires_grad."
        )
    return list(groups.values())
