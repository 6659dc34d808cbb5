"""Loading a config file with the overrides of the command line, and building what it describes.

A key that nothing reads raises an error that names the nearest known key; LazyConfig itself would
ignore it.
"""

import contextlib
import logging
import os
import re
from collections.abc import Mapping, Sequence
from functools import reduce
from operator import getitem
from pathlib import Path, PurePath
from typing import Any

import yaml
from detectron2.config import instantiate
from detectron2.utils import comm
from detectron2.utils.logger import log_first_n
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ...errors import ConfigError, UserError, did_you_mean
from .argument_types import argument_types, is_text
from .calls import target_name
from .defaults import checked_values, with_defaults
from .files import public, run_file
from .overrides import apply_overrides
from .own_targets import resolve, unsaved
from .renamed import translated
from .scaling import BATCH, REFERENCE, fit_to_length, references, scale_to_batch
from .schema import SECTIONS, check_sections
from .values import check_calls, resolved

_LIBRARIES = ("torch", "torchvision", "detectron2", "fvcore", "timm", "numpy", "hydra")


def load_config(path: str, overrides: Sequence[str] = ()) -> DictConfig:
    """Load a config file, complete its ``train`` section with the defaults, apply overrides, and
    scale what neither they nor the user's own file set to the batch, see
    :func:`~kddetr.engine.config.scaling.scale_to_batch`.

    Args:
        path: a LazyConfig ``.py`` file, or the ``config.yaml`` that a run of this project has
            saved; keys of earlier versions are translated in the latter.
        overrides: ``key=value`` strings in hydra's grammar; ``+key=value`` adds a key on purpose.

    Raises:
        ConfigError: the file is missing or empty, is a Detectron2 YAML config, or raises an error,
            or a key or value is wrong.
    """
    file = _existing(path)
    try:
        return _loaded(file, overrides)
    except (OmegaConfBaseException, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"The config {file} cannot be read ({reason}): correct it.") from error


def _loaded(file: Path, overrides: Sequence[str]) -> DictConfig:
    is_saved = file.suffix in (".yaml", ".yml")
    cfg = _load_saved(file) if is_saved else _load_python(file)
    batches = {} if is_saved else references(cfg)
    tree = _plain(cfg)
    check_sections(tree, str(file))
    if not set(SECTIONS) & set(cfg):
        raise ConfigError(
            f"{file} holds no config: a config file sets {', '.join(SECTIONS)}, or imports them."
        )
    _drop_parts(cfg)
    cfg.train = with_defaults(tree.get("train") or {}, str(file), lenient=is_saved)
    overridden = apply_overrides(cfg, overrides)
    _drop_idle_evaluator(cfg)
    if REFERENCE in overridden:
        batches = {}  # the numbers are for this batch, wherever they come from
    _expand_home(cfg)
    tree = resolved(cfg)
    cfg.train = checked_values(cfg.train)
    if overrides:
        check_sections(tree, f"{file} with its overrides")
    check_calls(tree)
    fixed = overridden | {key for key, batch in batches.items() if batch is None}
    scale_to_batch(cfg, fixed, batches)
    if not is_saved or overridden & {"train.max_iter", BATCH}:  # a saved config has been fitted
        fit_to_length(cfg, fixed)
    _warn_of_unsaved(cfg, file)
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
        ConfigError: a constructor refuses its arguments. An error in the code of the user keeps its
            traceback.
    """
    if not isinstance(node, Mapping | DictConfig):
        return node
    call = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else dict(node)
    for name, value in arguments.items():
        *outer, last = name.split("__")
        reduce(getitem, outer, call)[last] = value
    try:
        return instantiate(call)
    except UserError:
        raise
    except Exception as error:
        # Constructors here raise ValueError, with a sentence, for arguments that do not fit.
        if type(error) is not ValueError and not _refused_by_library(error):
            raise
        name, reason = target_name(call["_target_"]), " ".join(str(error).split())
        if type(error) is not ValueError:
            reason = f"it cannot be built from these arguments ({type(error).__name__}: {reason})."
        raise ConfigError(f"{name}: {reason}") from error


def _refused_by_library(error: Exception) -> bool:
    """Whether a library raised an error of its own kind for arguments that it got from a config.

    Only code of this project and of the library has run until then: an error in a user's own class
    keeps its traceback, and so does one that this project raises by mistake.
    """
    packages, trace = [], error.__traceback__
    while trace is not None:
        packages.append(trace.tb_frame.f_globals.get("__name__", "").split(".")[0])
        trace = trace.tb_next
    return {*packages} <= {"kddetr", *_LIBRARIES} and packages[-1] in _LIBRARIES


def _existing(path: str) -> Path:
    if not path:
        raise ConfigError(
            "No config file was named; give one with --config-file, e.g. a file under configs/."
        )
    file = Path(path).expanduser()
    if file.is_dir():
        raise ConfigError(f"The config file {path} is a folder: name a file in it.")
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
    module = run_file(str(file))
    for section in SECTIONS:
        value = vars(module).get(section)
        if value is not None and not isinstance(value, DictConfig):
            raise ConfigError(
                f"{file}: {section} is a {type(value).__name__}, but a section is a LazyCall or a"
                " dictionary: write L(CLASS)(...) from detectron2.config's LazyCall, which is"
                " called later."
            )
    cfg = public(module)
    resolve(cfg)
    _paths_as_text(cfg)
    return cfg


def _paths_as_text(node: Any, *, in_train: bool = False) -> None:
    """Replace the objects of pathlib by their text where a text is wanted, in place."""
    if isinstance(node, ListConfig):
        for item in node:
            _paths_as_text(item)
    if not isinstance(node, DictConfig):
        return
    for key in list(node):
        if OmegaConf.is_interpolation(node, key) or OmegaConf.is_missing(node, key):
            continue
        value = node[key]
        if isinstance(value, PurePath) and (in_train or _is_text_argument(node, key)):
            node[key] = str(value)
        _paths_as_text(value, in_train=in_train or key == "train")


def _is_text_argument(call: DictConfig, name: str) -> bool:
    target = call.get("_target_")
    with contextlib.suppress(ConfigError):  # a wrong target, which is refused later
        if isinstance(target, str) or callable(target):
            return is_text(argument_types(target).get(name))
    return False


def _expand_home(node: Any) -> None:
    """Replace the ``~`` at the start of every path by the home folder, in place."""
    if not OmegaConf.is_config(node):
        return
    for key in list(node) if isinstance(node, DictConfig) else range(len(node)):
        if OmegaConf.is_interpolation(node, key) or OmegaConf.is_missing(node, key):
            continue
        value = node[key]
        if isinstance(value, str) and value.startswith("~"):
            node[key] = os.path.expanduser(value)
        _expand_home(value)


def _warn_of_unsaved(cfg: DictConfig, file: Path) -> None:
    names = unsaved(cfg)
    if names and comm.is_main_process():
        message = (
            f"{', '.join(names)}: a lambda, a function inside of a function, a partial function or"
            f" an object cannot be saved in config.yaml. The run itself can be resumed with {file};"
            " to load its config.yaml too, write a class or a function in the file and a LazyCall"
            " of it."
        )
        log_first_n(logging.WARNING, message, key="message", name=__name__)


def _load_saved(file: Path) -> DictConfig:
    """A config that a run has saved, with the keys of earlier versions translated.

    It is read as plain YAML, which runs no code. Only the file of a class that was written in a
    config file is executed.
    """
    try:
        tree = yaml.safe_load(file.read_bytes())
    except yaml.constructor.ConstructorError as error:
        raise ConfigError(
            f"The config file {file} holds an object, which cannot be read from plain YAML"
            f" ({str(error).splitlines()[0]}): use the original .py config."
        ) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
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
