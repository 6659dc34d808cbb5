"""Classes and functions that are written in a config file itself.

Detectron2 saves the callable of a LazyCall by its module, and a config file is not a module: its
class would be saved as ``builtins.NearObjects``. Here it is saved by its file, as
``/path/own.py.NearObjects``, and found there again.
"""

import builtins
import functools
import inspect
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import is_dataclass
from typing import Any

from detectron2.config import LazyConfig
from omegaconf import DictConfig, OmegaConf

from ..errors import ConfigError
from .calls import walk

_BY_FILE = re.compile(r"(?P<file>.+\.py)\.(?P<name>[^/\\]+)")
# What Detectron2 takes for the module of a class in a config file, or in one that it imports.
_BY_LOADER = re.compile(r"(?:builtins|detectron2\._cfg_loader.*\.py)\.(?P<name>.+)")


def execute(file: str, name: str | None = None) -> Any:
    """The config that a Python file describes, or what has a name in it."""
    original = builtins.__import__
    try:
        return LazyConfig.load(file, name)
    finally:
        # LazyConfig leaves its own version of it in place where a file raises an error.
        builtins.__import__ = original


def name_by_file(cfg: DictConfig, config_file: str) -> None:
    """Make the own callables of a config known by their file, in place."""
    for path, target in _targets(cfg):
        if isinstance(target, str):
            # LazyCall has already replaced a dataclass by its name.
            found = _BY_LOADER.fullmatch(target)
            if found and not hasattr(builtins, found["name"]):
                target = _find(os.path.abspath(config_file), found["name"])
                OmegaConf.update(cfg, path, target)
        elif _is_own(target):
            target.__module__ = _file_of(target) or os.path.abspath(config_file)


def resolve(cfg: DictConfig) -> None:
    """Replace the names that :func:`name_by_file` gives by the callables themselves, in place.

    Raises:
        ConfigError: a file, or a name in it, does not exist.
    """
    for path, target in _targets(cfg):
        found = _BY_FILE.fullmatch(target) if isinstance(target, str) else None
        if found and os.path.isabs(found["file"]):
            OmegaConf.update(cfg, path, _find(found["file"], found["name"]))


def _find(file: str, name: str) -> Callable:
    where = f"put it back, or change the _target_ in the config to where {name} is now."
    if not os.path.isfile(file):
        raise ConfigError(f"The config takes {name} from {file}, which does not exist: {where}")
    first, *inner = name.split(".")
    try:
        target = functools.reduce(getattr, inner, execute(file, first))
    except (KeyError, AttributeError) as error:
        raise ConfigError(
            f"The config takes {name} from {file}, in which there is no {name}: {where}"
        ) from error
    if _is_own(target):
        target.__module__ = file
    if is_dataclass(target):
        # A function in its place, because omegaconf would take the class for a structured config.
        return functools.wraps(target, updated=())(lambda **arguments: target(**arguments))
    return target


def _targets(cfg: DictConfig) -> Iterator[tuple[str, Any]]:
    """The dotted keys of all ``_target_`` in a config, and their values."""
    for path, value in walk(OmegaConf.to_container(cfg, resolve=False)):
        if path.endswith("._target_") and not isinstance(value, Mapping):
            yield path, value


def _is_own(target: Any) -> bool:
    if not (inspect.isclass(target) or inspect.isfunction(target)):
        return False
    # The module of a function in a config file is None.
    name = f"{target.__module__ or 'builtins'}.{target.__qualname__}"
    is_builtin = getattr(builtins, target.__qualname__, None) is target
    return _BY_LOADER.fullmatch(name) is not None and not is_builtin


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
