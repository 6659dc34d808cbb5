"""Classes and functions that are written in a config file itself.

Detectron2 saves the callable of a LazyCall by its module, and a config file is not a module: its
classes would be saved as ``builtins.NearObjects``. They are saved by their file here, as
``/path/own.py.NearObjects``, and found there again.
"""

import builtins
import inspect
import os
import re
from collections.abc import Callable, Iterator, Mapping
from functools import reduce
from typing import Any

from ..errors import ConfigError

_OWN = re.compile(r"(?P<file>.+\.py)\.(?P<name>[^/\\]+)")
# The module of what is written in a config file, or in one that it imports relatively.
_CONFIG_MODULES = ("builtins", "detectron2._cfg_loader")


def name_by_file(tree: Any, config_file: str) -> None:
    """Make the own callables of a config known by their file, in place.

    Args:
        tree: the config, in plain containers.
        config_file: the config file, for a class without a method, whose own file is not known.
    """
    for call in _calls(tree):
        target = call["_target_"]
        if _is_own(target):
            target.__module__ = _file_of(target) or os.path.abspath(config_file)


def resolve(tree: Any, load: Callable[[str, str], Any]) -> None:
    """Replace the names that :func:`name_by_file` gives by the callables themselves, in place.

    Args:
        tree: a saved config, in plain containers.
        load: executes a config file and returns what has the given name in it.

    Raises:
        ConfigError: a file, or a name in it, does not exist.
    """
    for call in _calls(tree):
        found = _OWN.fullmatch(call["_target_"]) if isinstance(call["_target_"], str) else None
        if found and os.path.isabs(found["file"]):
            call["_target_"] = target = _find(found["file"], found["name"], load)
            if _is_own(target):
                target.__module__ = found["file"]


def _find(file: str, name: str, load: Callable[[str, str], Any]) -> Any:
    if not os.path.isfile(file):
        raise ConfigError(
            f"The config names {name} of the file {file}, which does not exist: put the file back,"
            f" or change the _target_ in the config to where {name} is now."
        )
    first, *inner = name.split(".")
    try:
        return reduce(getattr, inner, load(file, first))
    except (KeyError, AttributeError) as error:
        raise ConfigError(
            f"The config names {name} of the file {file}, in which there is no {name}: put it back,"
            f" or change the _target_ in the config to where {name} is now."
        ) from error


def _calls(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield node
        for value in node.values():
            yield from _calls(value)
    elif isinstance(node, list):
        for item in node:
            yield from _calls(item)


def _is_own(target: Any) -> bool:
    if not (inspect.isclass(target) or inspect.isfunction(target)):
        return False
    is_builtin = getattr(builtins, target.__qualname__, None) is target
    return (target.__module__ or "").startswith(_CONFIG_MODULES) and not is_builtin


def _file_of(target: Any) -> str | None:
    """The file in which a function, or the methods of a class, are written."""
    members = vars(target).values() if inspect.isclass(target) else [target]
    for member in members:
        function = inspect.unwrap(getattr(member, "__func__", member))
        is_method = getattr(function, "__qualname__", "").startswith(target.__qualname__)
        code = getattr(function, "__code__", None)
        if code is not None and is_method and os.path.isfile(code.co_filename):
            return os.path.abspath(code.co_filename)
    return None
