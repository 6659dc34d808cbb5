"""Loading a LazyConfig file and its command-line overrides, strictly: a key that nobody reads is an
error that names the nearest known one, never a setting that silently does nothing.
"""

import builtins
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from detectron2.config import LazyConfig, instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf

from ..errors import ConfigError, did_you_mean
from .defaults import SECTIONS, train_defaults
from .scaling import scale_to_batch
from .schema import call_parameters, check_tree, check_values

__all__ = ["apply_overrides", "build", "load_config", "require_sections"]


def load_config(path: str, overrides: Sequence[str] = ()) -> DictConfig:
    """Load a config file, complete its `train` section with the defaults, apply overrides, and
    scale what is not overridden to the batch, see :func:`~kddetr.engine.scaling.scale_to_batch`.

    Args:
        path: a LazyConfig `.py` file, or the `config.yaml` that a run of this project has written.
        overrides: `key=value` strings in hydra's grammar; `+key=value` adds a key on purpose.

    Raises:
        ConfigError: the file is missing, is a Detectron2 YAML config, or a key or value is wrong.
    """
    file = _existing(path)
    is_yaml = file.suffix in (".yaml", ".yml")
    cfg = _load_dump(file) if is_yaml else _load_python(file)
    check_tree(_plain(cfg), str(path), lenient=is_yaml)
    _drop_parts(cfg)
    defaults = OmegaConf.create(train_defaults())
    cfg.train = OmegaConf.merge(defaults, cfg.train) if "train" in cfg else defaults
    said = apply_overrides(cfg, overrides)
    check_values(OmegaConf.to_container(cfg.train, resolve=True))
    scale_to_batch(cfg, fixed=said)
    return cfg


def require_sections(cfg: DictConfig, *sections: str) -> None:
    """Check that a config has what a job needs.

    Raises:
        ConfigError: it lacks one of `sections` (dotted names are allowed).
    """
    for section in sections:
        if OmegaConf.select(cfg, section) is None:
            raise ConfigError(
                f"The config has no {section}, which this job needs; configs/common/ holds ready "
                "ones."
            )


def build(node: Any, **arguments: Any) -> Any:
    """Instantiate a config node with plain lists and dictionaries as arguments.

    Detectron2's `instantiate` hands over omegaconf containers, which end up in optimizer states and
    from there in checkpoints that cannot be loaded safely.

    Args:
        node: a LazyCall node, or an object that is ready already.
        arguments: ready objects to pass as well; `params__model` is `model` of the call `params`.

    Raises:
        ConfigError: a constructor refuses its arguments.
    """
    if not isinstance(node, Mapping | DictConfig):
        return node
    call = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else dict(node)
    for name, value in arguments.items():
        *outer, last = name.split("__")
        inner = call
        for key in outer:
            inner = inner[key]
        inner[last] = value
    try:
        return instantiate(call)
    except ValueError as error:
        # Constructors here raise ValueError for arguments that do not go together, with a sentence.
        if type(error) is not ValueError:
            raise
        raise ConfigError(f"{_name_of(call)}: {error}") from error


def apply_overrides(cfg: DictConfig, overrides: Sequence[str]) -> set[str]:
    """Apply command-line overrides in place, refusing keys that are not there.

    Returns:
        The dotted keys that were set; of a group of keys those inside it.

    Raises:
        ConfigError: an unknown key, an override in another style, or a flag among the overrides.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    said: set[str] = set()
    for text in overrides:
        _check_style(text, overrides)
    for text in overrides:
        try:
            override = OverridesParser.create().parse_override(text)
        except HydraException as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(
                f"The override {text} cannot be read ({reason}); quote a value with special "
                "characters "
                "twice: \"key='a=b'\"."
            ) from error
        if override.is_delete():
            raise ConfigError(
                f"The override {text} deletes a key, which is not supported; set it to null."
            )
        said |= _set(
            cfg,
            override.key_or_group,
            override.value(),
            adding=override.is_add() or override.is_force_add(),
        )
    return said


def _check_style(text: str, overrides: Sequence[str]) -> None:
    if text.startswith("-"):
        raise ConfigError(
            f"{text} comes after an override and would be ignored; put flags before all overrides."
        )
    if "=" not in text and not text.startswith("~"):
        following = list(overrides)[list(overrides).index(text) + 1 :][:1] or ["VALUE"]
        raise ConfigError(
            f"Overrides are written key=value: {text}={following[0]} instead of '{text} "
            f"{following[0]}'."
        )
    if text.endswith("=None"):
        raise ConfigError(f"{text} sets the word 'None'; write {text[:-4]}null for no value.")


def _set(cfg: DictConfig, key: str, value: Any, *, adding: bool) -> set[str]:
    if isinstance(value, Mapping) and value and not adding:
        # One by one, so that none escapes the check.
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
                    f"Unknown key {key}: {path} is a list of {len(node)}, indexed {path}.0 and so "
                    "on."
                )
            node = node[int(part)]
            continue
        if not isinstance(node, DictConfig):
            raise ConfigError(
                f"Unknown key {key}: {path} is the value {node!r} and has no keys of its own."
            )
        if part in node:
            node = node[part]
            continue
        target = node.get("_target_")
        parameters = call_parameters(target) if target is not None else frozenset()
        # A call may take an argument that its file leaves at the default.
        if index == len(parts) - 1 and (parameters is None or part in parameters):
            return
        known = {str(name) for name in node if name != "_target_"} | (parameters or set())
        hint = did_you_mean(part, known)
        raise ConfigError(
            f"Unknown key {key}: {path or 'the config'} has no '{part}'; {hint} (+{key}=... adds a"
            " key on purpose.)"
        )


def _existing(path: str) -> Path:
    if not path:
        raise ConfigError(
            "No config file was named; give one with --config-file, e.g. a file under configs/."
        )
    file = Path(path)
    if not file.is_file():
        folder = file.parent
        names = (
            [name for name in os.listdir(folder) if name.endswith(".py")] if folder.is_dir() else []
        )
        hint = did_you_mean(file.name, names, otherwise="check the path.", count=3)
        raise ConfigError(f"The config file {path} does not exist in its folder; {hint}")
    if file.suffix not in (".py", ".yaml", ".yml"):
        raise ConfigError(
            f"The config file {path} must be a Python file or a run's own config.yaml."
        )
    return file


def _load_python(file: Path) -> DictConfig:
    original = builtins.__import__
    try:
        return LazyConfig.load(str(file))
    finally:
        builtins.__import__ = original  # LazyConfig leaves its own in place when a file raises


def _load_dump(file: Path) -> DictConfig:
    """A run's own dump; read without running code, which a dump of ours never needs."""
    try:
        with open(file) as stream:
            tree = yaml.safe_load(stream)
    except yaml.YAMLError as error:
        raise ConfigError(
            f"The config file {file} cannot be read as plain YAML: {str(error).splitlines()[0]}."
        ) from error
    if not isinstance(tree, dict) or "_BASE_" in tree or any(str(key).isupper() for key in tree):
        raise ConfigError(
            f"{file} is a Detectron2 YAML (CfgNode) config, and this project is configured in "
            "Python: start "
            "from a file under configs/ and name that model's weights with "
            "train.init_checkpoint=FILE."
        )
    return OmegaConf.create(tree, flags={"allow_objects": True})


def _drop_parts(cfg: DictConfig) -> None:
    """Drop top-level names that are no section: a file's building blocks, already part of sections.

    An override of one would change nothing, and is an unknown key once it is gone; those that an
    interpolation refers to stay.
    """
    text = str(_plain(cfg))
    for name in [name for name in cfg if name not in SECTIONS]:
        if not re.search(rf"\$\{{{re.escape(name)}[.}}]", text):
            del cfg[name]


def _name_of(call: Mapping[str, Any]) -> str:
    target = call["_target_"]
    return target if isinstance(target, str) else getattr(target, "__qualname__", str(target))


def _plain(cfg: DictConfig) -> dict[str, Any]:
    return OmegaConf.to_container(cfg, resolve=False)
