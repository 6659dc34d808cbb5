"""Parameter groups of an optimizer: learning rate and weight decay of every trainable parameter.

Detection transformers are trained with a smaller rate for the backbone and for sampling points.
Parameters are selected by a part of their name, which also works inside of a distiller
(``student.backbone...``).
"""

from collections.abc import Mapping
from typing import Any

from torch import nn

_NORMS = (
    nn.modules.batchnorm._BatchNorm,
    nn.modules.instancenorm._InstanceNorm,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.LocalResponseNorm,
)


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
    factors = dict(lr_factors or {})
    names = [name for name, _ in model.named_parameters()]
    idle = [part for part in factors if not any(part in name for name in names)]
    if idle:
        raise ValueError(
            f"lr_factors names {', '.join(idle)}, which occurs in no parameter's name of the"
            f" {type(model).__name__}; its parts are"
            f" {', '.join(sorted({n.split('.')[0] for n in names}))}."
        )
    groups: dict[tuple, dict[str, Any]] = {}
    seen: set[int] = set()
    for module_name, module in model.named_modules():
        for own_name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad or id(parameter) in seen:
                continue
            seen.add(id(parameter))
            name = f"{module_name}.{own_name}" if module_name else own_name
            matches = [part for part in factors if part in name]
            options: dict[str, Any] = {
                "lr": base_lr * (factors[max(matches, key=len)] if matches else 1.0)
            }
            if isinstance(module, _NORMS):
                decay = weight_decay_norm
            else:
                decay = weight_decay_bias if own_name == "bias" else None
            if decay is not None:
                options["weight_decay"] = decay
            group = groups.setdefault(tuple(options.items()), {"params": [], **options})
            group["params"].append(parameter)
    if not groups:
        raise ValueError(f"The {type(model).__name__} has no trainable parameter.")
    return list(groups.values())
