"""What a config may contain: known sections, known `train` keys, and arguments its callables have.

LazyConfig takes any key, so a mistyped one does nothing at all; here every key must be one that
somebody reads.
"""

import difflib
import inspect
import logging
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from detectron2.utils.registry import locate

from ..errors import ConfigError, did_you_mean
from .defaults import OPTIONAL, SECTIONS, train_defaults
from .scaling import LEARNING_RATE_RULES

__all__ = ["call_parameters", "check_tree", "check_values"]

_log = logging.getLogger(__name__)


def check_tree(tree: Mapping[str, Any], source: str, *, lenient: bool = False) -> None:
    """Check every key of a config.

    Args:
        tree: the config as plain containers, interpolations unresolved.
        source: its file, for messages.
        lenient: only warn about unknown `train` keys: a run's own dump holds those added by `+key`.

    Raises:
        ConfigError: a mistyped section, key or argument, with the nearest known one.
    """
    for section in tree:
        # Another name is a part that sections are made of, unless it looks like a section.
        if section not in SECTIONS and difflib.get_close_matches(section, SECTIONS, cutoff=0.6):
            raise ConfigError(
                f"{source}: there is no section '{section}'; {did_you_mean(section, SECTIONS)} "
                "(If it is none, start its name with an underscore.)"
            )
    known = SECTIONS["dataloader"]
    for key in tree.get("dataloader") or ():
        if key not in known:
            raise ConfigError(f"{source}: unknown key dataloader.{key}; {did_you_mean(key, known)}")
    _check_train(tree.get("train") or {}, train_defaults(), "train", source, lenient)
    for section in ("model", "optimizer", "lr_multiplier", "dataloader"):
        _check_calls(tree.get(section), section, source, in_call=False)


def check_values(train: Mapping[str, Any]) -> None:
    """Check that `train` values have the types of their defaults, and make sense.

    Raises:
        ConfigError: e.g. `train.max_iter=abc`.
    """
    _check_types(train, train_defaults(), "")
    for key in ("max_iter", "log_period"):
        if train[key] < 1:
            raise ConfigError(f"train.{key} must be at least 1, not {train[key]}.")
    if train["checkpointer"]["period"] < 1 or (train["checkpointer"]["max_to_keep"] or 1) < 1:
        raise ConfigError(
            "train.checkpointer.period and max_to_keep must be at least 1 (max_to_keep may be "
            "null)."
        )
    for key in ("seed", "eval_period"):
        if train[key] < 0:
            raise ConfigError(f"train.{key} must not be negative: {train[key]}.")
    scaling = train["batch_scaling"]
    if scaling["reference"] < 0:
        raise ConfigError(
            "train.batch_scaling.reference is a batch size, or 0 to scale nothing, not "
            f"{scaling['reference']}."
        )
    if scaling["learning_rate"] not in LEARNING_RATE_RULES:
        raise ConfigError(
            f"train.batch_scaling.learning_rate must be {', '.join(LEARNING_RATE_RULES)}, not "
            f"'{scaling['learning_rate']}'."
        )
    if train["amp"]["dtype"] not in ("bfloat16", "float16"):
        raise ConfigError(
            f"train.amp.dtype must be bfloat16 or float16, not '{train['amp']['dtype']}'."
        )


@cache
def call_parameters(target: Callable | str) -> frozenset[str] | None:
    """Names of the keyword arguments a config's callable takes; None when it takes any.

    Args:
        target: the callable of a LazyCall, or its import path.

    Raises:
        ConfigError: the path leads nowhere.
    """
    if isinstance(target, str):
        try:
            found = locate(target)
        except ImportError:
            found = None
        if not callable(found):
            raise ConfigError(
                f"There is nothing to call under the name {target}; check its spelling."
            )
        target = found
    try:
        parameters = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):  # some builtins have no signature
        return None
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return None
    return frozenset(
        p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    )


def _check_train(node: Any, known: Any, path: str, source: str, lenient: bool) -> None:
    for key, value in node.items():
        if key not in known:
            message = f"{source}: unknown key {path}.{key}; {did_you_mean(key, known)}"
            if not lenient:
                raise ConfigError(message)
            _log.warning(message)
        elif isinstance(known[key], dict):
            if not isinstance(value, Mapping):
                raise ConfigError(
                    f"{source}: {path}.{key} is a group of keys, not the value {value!r}."
                )
            _check_train(value, known[key], f"{path}.{key}", source, lenient)


def _check_calls(node: Any, path: str, source: str, *, in_call: bool) -> None:
    """Walk a section; `in_call` tells whether it is an argument of some LazyCall."""
    if isinstance(node, list):
        for index, item in enumerate(node):
            _check_calls(item, f"{path}.{index}", source, in_call=in_call)
    if not isinstance(node, Mapping):
        return
    target = node.get("_target_")
    if target is not None:
        _check_arguments(node, target, path, source)
    for key, value in node.items():
        if in_call and target is None and _holds_call(value):
            raise ConfigError(
                f"{source}: {path}.{key} is a LazyCall inside a plain dictionary, which Detectron2 "
                "hands over without calling; use a list of LazyCalls, or an argument of its own."
            )
        _check_calls(value, f"{path}.{key}", source, in_call=in_call or target is not None)


def _check_arguments(node: Mapping[str, Any], target: Any, path: str, source: str) -> None:
    if isinstance(target, Mapping):  # a call that makes the callable: nothing is known about it
        return
    known = call_parameters(target)
    for key in node:
        if key != "_target_" and known is not None and key not in known:
            name = target if isinstance(target, str) else target.__qualname__
            raise ConfigError(
                f"{source}: {path}.{key}: {name} has no such argument; {did_you_mean(key, known)}"
            )


def _holds_call(value: Any) -> bool:
    if isinstance(value, list):
        return any(_holds_call(item) for item in value)
    return isinstance(value, Mapping) and "_target_" in value


def _check_types(node: Mapping[str, Any], defaults: Mapping[str, Any], prefix: str) -> None:
    for key, default in defaults.items():
        value, name = node[key], prefix + key
        if isinstance(default, dict):
            _check_types(value, default, f"{name}.")
            continue
        if value is None and name in OPTIONAL:
            continue
        accepted = (int, float) if isinstance(default, float) else type(default)
        wrong_bool = isinstance(value, bool) and not isinstance(default, bool)
        if wrong_bool or not isinstance(value, accepted):
            null = " or null" if name in OPTIONAL else ""
            raise ConfigError(
                f"train.{name} must be of type {type(default).__name__}{null}, not {value!r}."
            )
