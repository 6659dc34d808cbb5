"""The LazyCalls in a config: their callables, and the arguments that these take."""

import contextlib
import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

from detectron2.utils.registry import locate
from omegaconf import DictConfig

from ...errors import ConfigError, did_you_mean

_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def walk(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The dotted keys and values of a tree of plain containers, outer ones first."""
    if isinstance(node, list):
        node = dict(enumerate(node))
    if isinstance(node, Mapping):
        for key, value in node.items():
            inner = f"{path}.{key}" if path else str(key)
            yield inner, value
            yield from walk(value, inner)


def holds_call(value: Any) -> bool:
    """Whether a value in plain containers is a LazyCall, or a list with one."""
    if isinstance(value, list):
        return any(holds_call(item) for item in value)
    return isinstance(value, Mapping) and "_target_" in value


def located(target: Callable | str) -> Callable:
    """The callable of a LazyCall, which is given as itself or by its import path.

    Raises:
        ConfigError: nothing is found at the path, or it cannot be called.
    """
    if not isinstance(target, str):
        found, reason = target, "it is no function or class."
    else:
        found, reason = None, _missing_part(target)
        with contextlib.suppress(Exception):  # whatever a module of the user's raises
            found = locate(target)
    if not callable(found):
        raise ConfigError(f"{target} cannot be found, or is not callable: {reason}")
    return found


def _missing_part(path: str) -> str:
    """Which part of an import path does not exist, for messages."""
    module, _, name = path.rpartition(".")
    while module:
        try:
            known = dir(importlib.import_module(module))
        except ModuleNotFoundError:
            module, _, name = module.rpartition(".")
        except Exception as error:
            return f"importing {module} raises {type(error).__name__}: {error}."
        else:
            hint = did_you_mean(name, known, otherwise="check its spelling.")
            return f"{module} has no {name}; {hint}"
    first = path.split(".")[0]
    return f"there is no module {first}: check its spelling, or add its folder to PYTHONPATH."


@cache
def call_parameters(target: Callable | str) -> frozenset[str] | None:
    """The keyword arguments that the callable of a LazyCall takes; None: it takes any."""
    parameters = parameters_of(target)
    if parameters is None or any(p.kind is p.VAR_KEYWORD for p in parameters):
        return None
    return frozenset(p.name for p in parameters if p.kind in _BY_NAME)


@cache
def needed_arguments(target: Callable | str) -> frozenset[str]:
    """The arguments that the callable of a LazyCall cannot be called without."""
    parameters = parameters_of(target) or ()
    return frozenset(p.name for p in parameters if p.kind in _BY_NAME and p.default is p.empty)


@cache
def numeric_arguments(target: Callable | str) -> frozenset[str]:
    """The arguments whose default is a number or a truth value."""
    parameters = parameters_of(target) or ()
    return frozenset(p.name for p in parameters if isinstance(p.default, int | float))


def parameters_of(target: Callable | str) -> list[inspect.Parameter] | None:
    """The parameters of the callable of a LazyCall; None where they are not known."""
    try:
        return list(inspect.signature(located(target)).parameters.values())
    except (TypeError, ValueError):  # some builtins have no signature
        return None


def target_name(target: Callable | str) -> str:
    """The name of a callable for messages."""
    return target if isinstance(target, str) else getattr(target, "__qualname__", str(target))


def needs_no_teacher(model: Any) -> bool:
    """Whether a config node is a distiller of weight 0, which never asks its teacher, and which can
    be built without one.
    """
    if not isinstance(model, Mapping | DictConfig) or model.get("weight") != 0:
        return False
    target = model.get("_target_")
    if target is None or isinstance(target, Mapping | DictConfig):
        return False
    return any(p.name == "teacher" and p.default is None for p in parameters_of(target) or ())
