"""In which settings two configs differ; a list is one setting, however long."""

from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ...errors import ConfigError
from .calls import holds_call, located

UNSET = "unset"


def differences(before: DictConfig, now: DictConfig) -> dict[str, tuple[Any, Any]]:
    """The settings that differ, by dotted key, each with both values; :data:`UNSET` for none.

    A callable and its name are the same, and so are a reference and the value that it stands for.
    """
    old, new = settings(before), settings(now)
    found = {}
    for key in dict.fromkeys([*old, *new]):
        pair = old.get(key, UNSET), new.get(key, UNSET)
        if pair[0] != pair[1] and _value(before, key, pair[0]) != _value(now, key, pair[1]):
            found[key] = pair
    return found


def settings(cfg: DictConfig) -> dict[str, Any]:
    """The values of a config by dotted key, references unresolved and callables as their names."""
    return dict(_settings(OmegaConf.to_container(cfg, resolve=False)))


def _settings(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The values of a tree by dotted key; a list is a value unless there are calls in it."""
    if isinstance(node, list) and holds_call(node):
        node = dict(enumerate(node))
    if not isinstance(node, Mapping) or not node:
        yield path, _named(node) if path.endswith("_target_") else node
        return
    for key, value in node.items():
        yield from _settings(value, f"{path}.{key}" if path else str(key))


def _named(target: Any) -> Any:
    """The name of a callable; a saved config has the name, a config file the object itself."""
    try:
        target = located(target)
    except ConfigError:
        return target
    return f"{target.__module__}.{getattr(target, '__qualname__', target)}"


def _value(cfg: DictConfig, key: str, raw: Any) -> Any:
    """A value with its references resolved."""
    if "${" not in str(raw):
        return raw
    try:
        value = OmegaConf.select(cfg, key)
    except OmegaConfBaseException:
        return raw
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
