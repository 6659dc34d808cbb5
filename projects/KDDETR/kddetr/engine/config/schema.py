"""The sections that a config has, and the arguments that its LazyCalls take.

LazyConfig accepts any key, so a mistyped one would do nothing at all. Here every key has to be one
that is read.
"""

from collections.abc import Callable, Mapping
from typing import Any

from ...errors import ConfigError, did_you_mean
from ...renamed import current_name
from ...structures import DistillationLoss
from .calls import call_parameters, holds_call, located, target_name
from .renamed import LOSS_IS_NOW, current_argument

# Sections whose keys are those of the calls in them; ``train`` is in defaults.py.
CALLS = ("model", "optimizer", "lr_multiplier", "dataloader")
SECTIONS = (*CALLS, "train")
# The parts that a run builds as a whole.
WHOLE = (
    "model",
    "optimizer",
    "lr_multiplier",
    "dataloader.train",
    "dataloader.test",
    "dataloader.evaluator",
)
LOADERS = ("train", "test", "evaluator")


def check_sections(tree: Mapping[str, Any], source: str) -> None:
    """Check the names of a config's sections, and the arguments of all its calls.

    The config comes in plain containers, its interpolations unresolved; ``source`` is its file, for
    messages.

    Raises:
        ConfigError: a mistyped section, key or argument, with the nearest known one, or an argument
            of an earlier version, with today's name.
    """
    for section in tree:
        if not isinstance(section, str):
            raise ConfigError(f"{source}: {section!r} is no name of a section: put it in quotes.")
        # Other names are parts that sections are made of, unless they are nearly a section's name.
        hint = did_you_mean(section, SECTIONS, otherwise="", cutoff=0.6)
        if section not in SECTIONS and hint:
            raise ConfigError(
                f"{source}: there is no section '{section}'; {hint} (If it is not meant as a"
                " section, start its name with an underscore.)"
            )
    for section in SECTIONS:
        if not isinstance(tree.get(section, {}), Mapping | None):
            raise ConfigError(
                f"{source}: {section} is a group of keys and cannot be the single value"
                f" {tree[section]!r}."
            )
    for key in tree.get("dataloader") or ():
        if key not in LOADERS:
            hint = did_you_mean(str(key), LOADERS)
            raise ConfigError(f"{source}: unknown key dataloader.{key}; {hint}")
    for path in WHOLE:
        node: Any = tree
        for part in path.split("."):
            node = node.get(part) if isinstance(node, Mapping) else None
        is_group = isinstance(node, Mapping) and node and "_target_" not in node
        if is_group or isinstance(node, str | int | float):
            found = "a group of keys without a _target_" if is_group else f"the value {node!r}"
            raise ConfigError(
                f"{source}: {path} is {found}, and so builds nothing: write it as a LazyCall,"
                " L(CLASS)(...)."
            )
    for section in CALLS:
        _check_calls(tree.get(section), section, source, in_call=False)


def _check_calls(node: Any, path: str, source: str, *, in_call: bool) -> None:
    """Walk a section; ``in_call`` says whether it is an argument of a LazyCall."""
    if isinstance(node, list):
        for index, item in enumerate(node):
            _check_calls(item, f"{path}.{index}", source, in_call=in_call)
    if not isinstance(node, Mapping):
        return
    target = node.get("_target_")
    # A target may be a LazyCall that makes the callable, whose arguments cannot be known here.
    if target is not None and not isinstance(target, Mapping):
        _check_arguments(node, target, path, source)
    for key, value in node.items():
        if in_call and target is None and holds_call(value):
            raise ConfigError(
                f"{source}: {path}.{key} is a LazyCall inside a plain dictionary, which Detectron2"
                " does not call: use a list of LazyCalls, or an argument for each of them."
            )
        _check_calls(value, f"{path}.{key}", source, in_call=in_call or target is not None)


def _check_arguments(
    node: Mapping[str, Any], target: Callable | str, path: str, source: str
) -> None:
    if not isinstance(target, str) and not callable(target):
        raise ConfigError(
            f"{source}: {path}._target_ must be the import path of a class or a function, not"
            f" {target!r}."
        )
    if isinstance(target, str) and (new := current_name(target)):
        raise ConfigError(f"{source}: {path}: {target} is now called {new}.")
    try:
        found = located(target)
    except ConfigError as error:
        raise ConfigError(f"{source}: {path}._target_: {error}") from error
    if found is DistillationLoss:
        raise ConfigError(f"{source}: {path}: {LOSS_IS_NOW}")
    known = call_parameters(target)
    for key in node:
        if key == "_target_" or known is None or key in known:
            continue
        if not isinstance(key, str):
            raise ConfigError(f"{source}: {path} has the key {key!r}, which is no text.")
        if new := current_argument(key, known):
            raise ConfigError(f"{source}: {path}.{key} is now called {path}.{new}.")
        hint = did_you_mean(key, known)
        raise ConfigError(
            f"{source}: {path}.{key}: {target_name(target)} has no such argument; {hint} (A call"
            " with other arguments is written as a whole in a config file.)"
        )
