"""Checks of a config's values at the door: every call has its arguments, of the right types.

Which values are in range is known where they are used: constructors raise a ValueError, which
:func:`kddetr.engine.build` turns into a sentence.
"""

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ...errors import ConfigError
from .argument_types import argument_types, finite, fits, is_typed, wrong_type
from .calls import located, needed_arguments, target_name, walk
from .schema import CALLS

# Given when the call is made.
GIVEN_LATER = ("optimizer.params.model",)
# The weight of a distillation that is measured before the training, see ..auto_weight.
WEIGHT, AUTO_WEIGHT = "model.weight", "auto"
_INFINITE = (float("inf"), float("-inf"))  # which a class of the user's may take
# Smallest values of arguments of PyTorch's loader, which is made long after the start of training
# where it is for evaluation.
LEAST = {"num_workers": 0, "batch_size": 1, "total_batch_size": 1, "unlabeled_per_batch": 0}


def resolved(cfg: DictConfig) -> dict[str, Any]:
    """A config in plain containers, with the values of its interpolations.

    Raises:
        ConfigError: an interpolation ``${...}`` refers to nothing or to itself, or a value is
            ``???``.
    """
    tree = {}
    try:
        # What others refer to comes first, so that the sentence names the key that is wrong.
        for name in sorted(cfg, key=lambda name: name != "train"):
            value = cfg[name]
            if OmegaConf.is_config(value):
                value = OmegaConf.to_container(value, resolve=True, throw_on_missing=True)
            tree[name] = value
        return tree
    except (OmegaConfBaseException, RecursionError) as error:
        key = getattr(error, "full_key", None)
        reason = str(error).splitlines()[0].rstrip(".") or type(error).__name__
        raise ConfigError(
            f"{key or 'A value of the config'} cannot be resolved ({reason}): write the value"
            " itself, or the dotted key of another value, such as ${train.max_iter}."
        ) from error


def check_calls(tree: Mapping[str, Any]) -> None:
    """Check the arguments of all calls in a resolved config.

    Raises:
        ConfigError: an argument is missing, or its value has another type or is not finite.
    """
    for path, value in walk(tree.get("train"), "train"):
        if isinstance(value, int) and not finite(value):
            raise ConfigError(f"{path} must be below 2**63, not {value}.")
    for section in CALLS:
        node = tree.get(section)
        for path, value in [(section, node), *walk(node, section)]:
            target = value.get("_target_") if isinstance(value, Mapping) else None
            if target is not None and not isinstance(target, Mapping):
                _check_call(path, value, target)


def _check_call(path: str, node: Mapping[str, Any], target: Any) -> None:
    for name in sorted(needed_arguments(target) - node.keys()):
        if f"{path}.{name}" not in GIVEN_LATER:
            raise ConfigError(
                f"{path}: {target_name(target)} needs the argument {name}: set {path}.{name}."
            )
    function = located(target)
    types, strict = argument_types(target), is_typed(function)
    package = str(getattr(function, "__module__", "")).split(".")[0]
    for name, value in node.items():
        key = f"{path}.{name}"
        if (key, value) == (WEIGHT, AUTO_WEIGHT):
            continue
        if name in types and not fits(value, types[name]):
            raise ConfigError(wrong_type(key, value, types[name]))
        items = value if isinstance(value, list) else [value]
        if not all(finite(item) or (item in _INFINITE and not strict) for item in items):
            raise ConfigError(f"{key} must be a finite number of at most 64 bits, not {value}.")
        if name in LEAST and package in ("kddetr", "detectron2", "torch"):
            if not fits(value, int):
                raise ConfigError(wrong_type(key, value, int))
            if isinstance(value, int) and value < LEAST[name]:
                raise ConfigError(f"{key} must be at least {LEAST[name]}, not {value}.")
