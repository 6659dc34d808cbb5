"""Overrides of a config on the command line, ``key=value``, which refuse unknown keys."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from detectron2.utils.logger import log_first_n
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ...errors import ConfigError, did_you_mean
from .argument_types import argument_types, is_text
from .calls import call_parameters, numeric_arguments
from .defaults import train_types
from .renamed import current_argument

QUOTE = "quote a value with special characters twice: \"key='a=b'\"."


def apply_overrides(cfg: DictConfig, overrides: Sequence[str]) -> set[str]:
    """Apply overrides in hydra's grammar, in place. Of two for one key the last one counts.

    Where an argument is a text, such as a path, a value that reads as a number is its text.

    Args:
        cfg: the config.
        overrides: ``key=value``; ``+key=value`` adds a key that does not exist.

    Returns:
        The dotted keys that were set; of a group of keys those inside it.

    Raises:
        ConfigError: an unknown key, an override in another style, or a flag among the overrides.
    """
    overridden: set[str] = set()
    for text in overrides:
        if not text.isprintable():
            raise ConfigError(f"The override {text!r} has a line break or a control character.")
    for text, following in zip(overrides, [*overrides[1:], "VALUE"]):
        _check_style(text, following)
        key, value, adding = _parsed(cfg, text)
        try:
            keys = _set(cfg, key, value, adding=adding)
        except OmegaConfBaseException as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(f"The override {text} cannot be used ({reason}); {QUOTE}") from error
        if twice := sorted(keys & overridden):
            message = f"{', '.join(twice)} is overridden twice: the last value, of {text}, counts."
            log_first_n(logging.WARNING, message, key="message", name=__name__)
        overridden |= keys
    return overridden


def _check_style(text: str, following: str) -> None:
    if text.startswith("-"):
        raise ConfigError(
            f"{text} comes after an override and would be ignored; put flags before all overrides."
        )
    if text.startswith("~"):
        raise ConfigError(
            f"The override {text} deletes a key, which is not supported: set it to null."
        )
    key, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(
            f"Overrides are written key=value: {text}={following} instead of '{text} {following}'."
        )
    if value.startswith("="):
        raise ConfigError(f"{text} has two equality signs: write {key}={value.lstrip('=')}.")
    if value == "None":
        raise ConfigError(f"{text} sets the word 'None'; write {key}=null for no value.")


def _parsed(cfg: DictConfig, text: str) -> tuple[str, Any, bool]:
    """The key of an override, its value, and whether it adds the key."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    key, _, given = text.partition("=")
    key, given = key.lstrip("+"), given.strip()
    wants_text = _wants_text(cfg, key)
    try:
        override = OverridesParser.create().parse_override(text)
        value = override.value()
    except HydraException as error:
        if wants_text and given[:1] not in "\"'[{":
            return key, given, text.startswith("+")
        reason = str(error).splitlines()[0]
        raise ConfigError(f"The override {text} cannot be read ({reason}); {QUOTE}") from error
    if override.is_sweep_override():
        listed = given if override.is_choice_sweep() and "(" not in given else "1,2"
        raise ConfigError(
            f"The override {text} gives several values, and a run has one: a list is"
            f" {key}=[{listed}], a text is \"{key}='{given}'\", and a number has no comma."
        )
    if override.package is not None or not isinstance(
        value, bool | int | float | str | list | dict | None
    ):
        raise ConfigError(f"The override {text} cannot be used: write key=value.")
    if wants_text and isinstance(value, bool | int | float):
        value = given
    return override.key_or_group, value, override.is_add() or override.is_force_add()


def _wants_text(cfg: DictConfig, key: str) -> bool:
    """Whether the value of a key is a text, by the type of the argument, or else as it is now."""
    group, _, name = key.rpartition(".")
    if key.startswith("train."):
        return key in train_types() and is_text(train_types()[key])
    try:
        node = OmegaConf.select(cfg, group) if group else cfg
        now = node[name] if OmegaConf.is_config(node) and not _is_reference(node, name) else None
    except (OmegaConfBaseException, ValueError, TypeError, KeyError, IndexError):
        return False  # a key that does not exist, which is refused elsewhere
    if not isinstance(node, DictConfig) or name == "_target_":
        return False
    target = node.get("_target_")
    target = target if isinstance(target, str) or callable(target) else None
    types = argument_types(target) if target is not None else {}
    if name in types:
        return is_text(types[name])
    # Without an annotation, a number as the default says that it is not always a text.
    return isinstance(now, str) and name not in (numeric_arguments(target) if target else ())


def _is_reference(node: DictConfig | ListConfig, name: str) -> bool:
    return (
        isinstance(node, ListConfig) or name not in node or OmegaConf.is_interpolation(node, name)
    )


def _set(cfg: DictConfig, key: str, value: Any, *, adding: bool) -> set[str]:
    if isinstance(value, Mapping) and value and not adding:
        # One by one, so that every key inside a group is checked.
        keys = (_set(cfg, f"{key}.{name}", inner, adding=False) for name, inner in value.items())
        return set().union(*keys)
    if not adding:
        _check_key(cfg, key)
    # A name with dots in it, such as those of optimizer.params.lr_factors, is written in brackets.
    path = "".join(f"[{p}]" if "." in p else f".{p}" for p in _parts(cfg, key)).lstrip(".")
    now = OmegaConf.select(cfg, path)
    merges = adding and isinstance(value, Mapping) and value
    if isinstance(now, DictConfig) and not (value is None or merges or _replaces(now, key, value)):
        example = next((f"{key}.{name}" for name in now if name != "_target_"), f"{key}.KEY")
        raise ConfigError(
            f"{key} is a group of keys and cannot be the single value {value!r}: set the keys in"
            f" it, such as {example}."
        )
    OmegaConf.update(cfg, path, value, merge=value != {}, force_add=True)
    return {key}


def _parts(node: Any, key: str) -> list[str]:
    """The names that a dotted key consists of, where a name may have dots itself."""
    if isinstance(node, DictConfig) and key in node:
        return [key]
    name, dot, rest = key.partition(".")
    if isinstance(node, DictConfig):
        dotted = [str(k) for k in node if "." in str(k) and key.startswith(f"{k}.")]
        name = max(dotted, key=len, default=name)
        dot, rest = key[len(name) : len(name) + 1], key[len(name) + 1 :]
    if not dot:
        return [key]
    try:
        inner = node[int(name)] if isinstance(node, ListConfig) else node[name]
    except (OmegaConfBaseException, ValueError, TypeError, KeyError, IndexError):
        inner = None  # it does not exist
    return [name, *_parts(inner, rest)]


def _replaces(now: DictConfig, key: str, value: Any) -> bool:
    """An empty dictionary replaces a plain one, such as that of optimizer.params.lr_factors."""
    is_group = "_target_" in now or "." not in key or key.startswith("train.")
    return isinstance(value, Mapping) and not is_group


def _check_key(cfg: DictConfig, key: str) -> None:
    node: Any = cfg
    parts = _parts(cfg, key)
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
    if part in (parameters or ()):
        raise ConfigError(
            f"Unknown key {key}: {path}.{part} is an argument that the config does not set, and so"
            f" has no keys yet: set {path}.{part} as a whole."
        )
    known = {str(name) for name in node if name != "_target_"} | (parameters or set())
    hint = f"{did_you_mean(part, known)} (+{key}=... adds a key on purpose.)"
    if part in ("json_file", "image_root") and "names" in known:
        hint = (
            "it takes data sets that are registered by name. For files of your own take a config"
            " such as configs/detectors/custom.py or configs/distill/custom.py, or python"
            " tools/train.py DATA --model NAME."
        )
    raise ConfigError(f"Unknown key {key}: {path or 'the config'} has no '{part}'; {hint}")
