"""Overrides of a config on the command line, ``key=value``, which refuse unknown keys."""

from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from ..errors import ConfigError, did_you_mean
from .calls import call_parameters
from .renamed import current_argument


def apply_overrides(cfg: DictConfig, overrides: Sequence[str]) -> set[str]:
    """Apply overrides in hydra's grammar, in place.

    Args:
        cfg: the config.
        overrides: ``key=value``; ``+key=value`` adds a key that does not exist.

    Returns:
        The dotted keys that were set; of a group of keys those inside it.

    Raises:
        ConfigError: an unknown key, an override in another style, or a flag among the overrides.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    overridden: set[str] = set()
    for text, following in zip(overrides, [*overrides[1:], "VALUE"]):
        _check_style(text, following)
        try:
            override = OverridesParser.create().parse_override(text)
        except HydraException as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(
                f"The override {text} cannot be read ({reason}); quote a value with special"
                " characters twice: \"key='a=b'\"."
            ) from error
        if override.is_delete():
            raise ConfigError(
                f"The override {text} deletes a key, which is not supported: set it to null."
            )
        adding = override.is_add() or override.is_force_add()
        overridden |= _set(cfg, override.key_or_group, override.value(), adding=adding)
    return overridden


def _check_style(text: str, following: str) -> None:
    if text.startswith("-"):
        raise ConfigError(
            f"{text} comes after an override and would be ignored; put flags before all overrides."
        )
    if "=" not in text and not text.startswith("~"):
        raise ConfigError(
            f"Overrides are written key=value: {text}={following} instead of '{text} {following}'."
        )
    if text.endswith("=None"):
        raise ConfigError(f"{text} sets the word 'None'; write {text[:-4]}null for no value.")


def _set(cfg: DictConfig, key: str, value: Any, *, adding: bool) -> set[str]:
    if isinstance(value, Mapping) and value and not adding:
        # One by one, so that every key inside a group is checked.
        keys = (_set(cfg, f"{key}.{name}", inner, adding=False) for name, inner in value.items())
        return set().union(*keys)
    if not adding:
        _check_key(cfg, key)
    OmegaConf.update(cfg, key, value, merge=True, force_add=True)
    return {key}


def _check_key(cfg: DictConfig, key: str) -> None:
    node: Any = cfg
    parts = key.split(".")
    for index, part in enumerate(parts):
        path = ".".join(parts[:index])
        if isinstance(node, ListConfig):
            if not part.isdigit() or int(part) >= len(node):
                raise ConfigError(
                    f"Unknown key {key}: {path} is a list of {len(node)} items, whose keys are"
                    f" {path}.0 and so on."
                )
            node = node[int(part)]
        elif not isinstance(node, DictConfig):
            raise ConfigError(
                f"Unknown key {key}: {path} is the value {node!r} and has no keys of its own."
            )
        elif part in node:
            node = node[part]
        else:
            _check_argument(node, part, path, key, is_last=index == len(parts) - 1)
            return


def _check_argument(node: DictConfig, part: str, path: str, key: str, *, is_last: bool) -> None:
    """Refuse a key that a node does not have, unless the node is a call that takes it."""
    target = node.get("_target_")
    parameters = call_parameters(target) if target is not None else frozenset()
    if is_last and (parameters is None or part in parameters):
        return
    if new := current_argument(part, parameters):
        raise ConfigError(f"{path}.{part} is now called {path}.{new}.")
    known = {str(name) for name in node if name != "_target_"} | (parameters or set())
    raise ConfigError(
        f"Unknown key {key}: {path or 'the config'} has no '{part}';"
        f" {did_you_mean(part, known)} (+{key}=... adds a key on purpose.)"
    )
