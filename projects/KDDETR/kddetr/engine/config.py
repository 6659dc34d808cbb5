"""Loading a config file with the overrides of the command line, and building what it describes.

A key that nothing reads raises an error that names the nearest known key; LazyConfig itself would
ignore it.
"""

import logging
import re
from collections.abc import Mapping, Sequence
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

import yaml
from detectron2.config import instantiate
from detectron2.utils import comm
from detectron2.utils.logger import log_first_n
from omegaconf import DictConfig, OmegaConf

from ..errors import ConfigError, did_you_mean
from ..renamed import MODULES
from .calls import target_name
from .defaults import checked_values, with_defaults
from .overrides import apply_overrides
from .own_targets import execute, name_by_file, resolve
from .renamed import translated
from .scaling import scale_to_batch
from .schema import SECTIONS, check_sections


def load_config(path: str, overrides: Sequence[str] = ()) -> DictConfig:
    """Load a config file, complete its ``train`` section with the defaults, apply overrides, and
    scale what is not overridden to the batch, see :func:`~kddetr.engine.scaling.scale_to_batch`.

    Args:
        path: a LazyConfig ``.py`` file, or the ``config.yaml`` that a run of this project has
            saved; keys of earlier versions are translated in the latter.
        overrides: ``key=value`` strings in hydra's grammar; ``+key=value`` adds a key on purpose.

    Raises:
        ConfigError: the file is missing or empty, is a Detectron2 YAML config, or a key or value
            is wrong.
    """
    file = _existing(path)
    is_saved = file.suffix in (".yaml", ".yml")
    cfg = _load_saved(file) if is_saved else _load_python(file)
    tree = _plain(cfg)
    check_sections(tree, str(path))
    _drop_parts(cfg)
    cfg.train = with_defaults(tree.get("train", {}), str(path), lenient=is_saved)
    overridden = apply_overrides(cfg, overrides)
    _drop_idle_evaluator(cfg)
    cfg.train = checked_values(cfg.train)
    scale_to_batch(cfg, fixed=overridden)
    return cfg


def require_sections(cfg: DictConfig, *sections: str) -> None:
    """Check that a config has what a job needs.

    Raises:
        ConfigError: one of ``sections`` (dotted names are allowed) is missing.
    """
    for section in sections:
        if OmegaConf.select(cfg, section) is None:
            raise ConfigError(
                f"The config has no {section}, which is needed here: import one from configs/common"
                " in the config file."
            )


def build(node: Any, **arguments: Any) -> Any:
    """Instantiate a config node with plain lists and dictionaries as arguments.

    Detectron2's ``instantiate`` hands over omegaconf containers, which end up in optimizer states
    and from there in checkpoints that cannot be loaded safely.

    Args:
        node: a LazyCall node, or an object that is ready already.
        arguments: ready objects to pass as well; ``params__model`` is the argument ``model`` of the
            call ``params``.

    Raises:
        ConfigError: a constructor refuses its arguments.
    """
    if not isinstance(node, Mapping | DictConfig):
        return node
    call = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else dict(node)
    for name, value in arguments.items():
        *outer, last = name.split("__")
        reduce(getitem, outer, call)[last] = value
    try:
        return instantiate(call)
    except ValueError as error:
        # Constructors here raise ValueError, with a sentence, for arguments that do not fit.
        if type(error) is not ValueError:
            raise
        raise ConfigError(f"{target_name(call['_target_'])}: {error}") from error


def _existing(path: str) -> Path:
    if not path:
        raise ConfigError(
            "No config file was named; give one with --config-file, e.g. a file under configs/."
        )
    file = Path(path)
    if not file.is_file():
        names = [other.name for other in file.parent.glob("*.py")]
        hint = did_you_mean(file.name, names, otherwise="check the path.", count=3)
        raise ConfigError(f"The config file {path} does not exist; {hint}")
    if file.suffix not in (".py", ".yaml", ".yml"):
        raise ConfigError(
            f"The config file {path} must be a Python file or the config.yaml of a run."
        )
    return file


def _load_python(file: Path) -> DictConfig:
    try:
        cfg = execute(str(file))
    except ModuleNotFoundError as error:
        if error.name not in MODULES:
            raise
        raise ConfigError(
            f"{file}: the module {error.name} is now called {MODULES[error.name]}: import it"
            " from there."
        ) from error
    name_by_file(cfg, str(file))
    return cfg


def _load_saved(file: Path) -> DictConfig:
    """A config that a run has saved, with the keys of earlier versions translated.

    It is read as plain YAML, which runs no code. Only the file of a class that was written in a
    config file is executed.
    """
    try:
        with open(file) as stream:
            tree = yaml.safe_load(stream)
    except yaml.YAMLError as error:
        raise ConfigError(
            f"The config file {file} cannot be read as plain YAML ({str(error).splitlines()[0]});"
            " correct it, or use the original .py config."
        ) from error
    if not isinstance(tree, dict) or not tree:
        raise ConfigError(
            f"{file} holds no config; name a .py file under configs/ or the config.yaml of a run."
        )
    if "_BASE_" in tree or any(str(key).isupper() for key in tree):
        raise ConfigError(
            f"{file} is a Detectron2 YAML (CfgNode) config, and this project is configured in"
            " Python: start from a file under configs/ and name that model's weights with"
            " train.init_checkpoint=FILE."
        )
    replaced: dict[str, None] = {}
    cfg = OmegaConf.create(translated(tree, replaced), flags={"allow_objects": True})
    resolve(cfg)
    if replaced and comm.is_main_process():
        message = f"{file} is of an earlier version of kddetr; replaced {', '.join(replaced)}."
        log_first_n(logging.WARNING, message, key="message", name=__name__)
    return cfg


def _drop_parts(cfg: DictConfig) -> None:
    """Drop the top-level names that are no section: parts that the sections already contain.

    Overriding such a part would change nothing; when it is dropped its name is an unknown key. A
    part that an interpolation refers to stays.
    """
    text = str(_plain(cfg))
    for name in [name for name in cfg if name not in SECTIONS]:
        if not re.search(rf"\$\{{{re.escape(name)}[.}}]", text):
            del cfg[name]


def _drop_idle_evaluator(cfg: DictConfig) -> None:
    """Drop the evaluator where dataloader.test, to which it often refers, is null."""
    loaders = cfg.get("dataloader")
    if not OmegaConf.is_dict(loaders) or "evaluator" not in loaders:
        return
    test = loaders.get("test")
    if test is None or (OmegaConf.is_dict(test) and test.get("dataset", "") is None):
        loaders.evaluator = None


def _plain(cfg: DictConfig) -> dict[str, Any]:
    return OmegaConf.to_container(cfg, resolve=False)
