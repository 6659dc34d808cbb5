"""Classes and functions that are written in a config file itself.

Such a class has its file as its module, see :mod:`.files`, so a run saves it as
``/path/own.py.NearObjects``. Here it is found again.
"""

import functools
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import is_dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ...errors import ConfigError
from .calls import walk
from .files import run_file

PLAIN = (bool, int, float, str, list, dict, type(None))
_BY_FILE = re.compile(r"(?P<file>.+\.py)\.(?P<name>[^/\\]+)")


def resolve(cfg: DictConfig) -> None:
    """Replace the names of classes and functions in config files by these themselves, in place.

    Raises:
        ConfigError: a file, or a name in it, does not exist.
    """
    for path, target in _targets(cfg):
        found = _BY_FILE.fullmatch(target) if isinstance(target, str) else None
        if found and os.path.isabs(found["file"]):
            OmegaConf.update(cfg, path, _find(found["file"], found["name"]))


def unsaved(cfg: DictConfig) -> list[str]:
    """The dotted keys of what the ``config.yaml`` of a run cannot describe: lambdas, functions
    inside of functions, partial functions, and objects that are no LazyCalls.
    """
    found = []
    for path, value in walk(OmegaConf.to_container(cfg, resolve=False)):
        name = getattr(value, "__qualname__", "<")
        is_target = path.endswith("._target_") and callable(value)
        if not isinstance(value, PLAIN) and not (is_target and "<" not in name):
            found.append(path.removesuffix("._target_"))
    return found


def _find(file: str, name: str) -> Callable:
    where = f"put it back, or change the _target_ in the config to where {name} is now."
    if not os.path.isfile(file):
        raise ConfigError(f"The config takes {name} from {file}, which does not exist: {where}")
    if "<" in name:
        raise ConfigError(
            f"The config takes a function without a name of its own ({name}) from {file}, which"
            " cannot be found again: use the original config file."
        )
    try:
        target = functools.reduce(getattr, name.split("."), run_file(file))
    except AttributeError as error:
        raise ConfigError(
            f"The config takes {name} from {file}, in which there is no {name}: {where}"
        ) from error
    if is_dataclass(target):
        # A function in its place, because omegaconf would take the class for a structured config.
        return functools.wraps(target, updated=())(lambda **arguments: target(**arguments))
    return target


def _targets(cfg: DictConfig) -> Iterator[tuple[str, Any]]:
    """The dotted keys of all ``_target_`` in a config, and their values."""
    for path, value in walk(OmegaConf.to_container(cfg, resolve=False)):
        if path.endswith("._target_") and not isinstance(value, Mapping):
            yield path, value
