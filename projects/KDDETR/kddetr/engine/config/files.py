"""Running config files written in Python, and the sentence for a mistake in one of them.

It is Detectron2's LazyConfig with three differences. An absolute import of ``configs.`` works like
a relative one, from any folder. A class or function has its file as its module, so a saved config
finds it again. Every error is one sentence with the file and the line.
"""

import builtins
import contextlib
import importlib.util
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from detectron2.config import LazyConfig
from detectron2.data import DatasetCatalog, MetadataCatalog
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ...errors import ConfigError, UserError, did_you_mean
from ...renamed import MODULES
from .scaling import mark_reference

CONFIGS = "configs"  # the folder of this project that other folders import from
_ROOT = Path(__file__).resolve().parents[5]

_running: list[str] = []  # the files that are being run, outermost first
_ran: set[str] = set()  # all files that have been run, to find their lines in a traceback
_registered: dict[str, set[str]] = {}  # the data sets that each file has registered


class _InFile(ConfigError):
    """A mistake whose sentence names the file and the line already."""


def run_file(file: str) -> ModuleType:
    """Run a config file, and return its names as a module.

    Each call runs it anew, so that no config can change another one.

    Raises:
        ConfigError: the file cannot be read or run; the sentence has the file and the line.
    """
    file = os.path.abspath(file)
    if file in _running:
        chain = " imports ".join([*_running[_running.index(file) :], file])
        raise ConfigError(f"the config files import one another in a circle: {chain}.")
    if not os.path.isfile(file):
        raise ConfigError(f"the config file {file} does not exist.")
    source = Path(file).read_bytes()
    module = ModuleType(file)
    module.__dict__.update(__file__=file, __package__=os.path.dirname(file))
    before = _forget_data_sets(file)
    _running.append(file)
    _ran.add(file)
    sys.modules[file] = module  # dataclasses look their module up there
    try:
        # Those of the outermost file are there for the files that it imports, too.
        with _own_imports() if len(_running) == 1 else contextlib.nullcontext():
            exec(compile(source, file, "exec"), module.__dict__)
            sections = {name: _as_config(module, name) for name in list(vars(module))}
            for section in sections.values():
                _make_plain(section)
            mark_reference(sections)
    except _InFile:
        raise
    except (Exception, SystemExit) as error:
        raise _InFile(_sentence(error, file)) from error
    finally:
        _registered[file] = set(DatasetCatalog) - before
        sys.modules.pop(file, None)
        _running.pop()
    return module


def _forget_data_sets(file: str) -> set[str]:
    """Remove what the file registered when it was run before, so that it can register it again.

    Returns the names of the other data sets.
    """
    for name in _registered.pop(file, set()) & set(DatasetCatalog):
        DatasetCatalog.remove(name)
        if name in MetadataCatalog.list():
            MetadataCatalog.remove(name)
    return set(DatasetCatalog)


def _as_config(module: ModuleType, name: str) -> Any:
    """A name of a config file; a public dictionary is made a DictConfig first."""
    value = vars(module)[name]
    if isinstance(value, dict) and not name.startswith("_"):
        with contextlib.suppress(Exception):  # a table with other keys than a config can have
            value = DictConfig(value, flags={"allow_objects": True})
            vars(module)[name] = value
    return value


def _make_plain(node: Any) -> None:
    """Replace NumPy's numbers by Python's, in place, because a saved config has no others."""
    if not OmegaConf.is_config(node) or node._is_none() or node._is_interpolation():
        return
    for key in list(node) if isinstance(node, DictConfig) else range(len(node)):
        inner = node._get_node(key)
        value = inner._value()
        if isinstance(value, np.generic):
            node[key] = value.item()
        _make_plain(inner)


def public(module: ModuleType) -> DictConfig:
    """The config that a file describes: its public dictionaries and lists."""
    parts = {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, DictConfig | ListConfig) and not name.startswith("_")
    }
    return DictConfig(parts, flags={"allow_objects": True})


@contextlib.contextmanager
def _own_imports() -> Iterator[None]:
    """Let a config file import other ones, and load them with LazyConfig."""
    python_import, lazy_load = builtins.__import__, LazyConfig.__dict__["load"]

    def import_(
        name: str,
        globals: Mapping[str, Any] | None = None,
        locals: Mapping[str, Any] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> Any:
        importer = (globals or {}).get("__name__")  # of a config file, its path
        file = _file_of(name, importer, level) if importer in _ran else None
        if file is not None:
            return _imported(file, name, level, fromlist or ())
        return python_import(name, globals, locals, fromlist or (), level)

    def load(filename: str, keys: str | tuple[str, ...] | None = None) -> Any:
        if not str(filename).endswith(".py") or "://" in str(filename):
            return lazy_load.__func__(filename, keys)
        module = run_file(str(filename))
        if keys is None:
            return public(module)
        wanted = [keys] if isinstance(keys, str) else keys
        found = _with_names(module, wanted)
        values = tuple(vars(found)[name] for name in wanted)
        return values[0] if isinstance(keys, str) else values

    builtins.__import__, LazyConfig.load = import_, staticmethod(load)
    try:
        yield
    finally:
        builtins.__import__, LazyConfig.load = python_import, lazy_load


def _file_of(name: str, importer: str, level: int) -> Path | None:
    """The config file that an import names; None where it is an import of Python's own kind."""
    parts = name.split(".") if name else []
    if level:
        folders = [Path(importer).parents[min(level, len(Path(importer).parents)) - 1]]
    elif parts[0] == CONFIGS:
        around = [*Path(importer).parents, *map(Path, sys.path), _ROOT]
        folders = [folder for folder in around if (folder / CONFIGS).is_dir()]
    else:
        return None
    files = [folder.joinpath(*parts) for folder in folders]
    for path in files:
        if parts and path.with_name(f"{path.name}.py").is_file():
            return path.with_name(f"{path.name}.py")
    for path in files:
        if parts and (path / "__init__.py").is_file():
            return path / "__init__.py"  # a package beside the config
        if path.is_dir():
            raise ConfigError(
                f"{path} is a folder: import names from a file in it, as in `from"
                f" {'.' * level}{name}{'.' if name else ''}FILE import model`."
            )
    spec = None if level else importlib.util.find_spec(parts[0])
    if not files or (spec is not None and spec.origin):
        return None  # a package of this name that is no folder of configs
    path = next((path for path in files if path.parent.is_dir()), files[-1])
    known = [file.stem for file in path.parent.glob("*.py")]
    hint = did_you_mean(path.name, known, otherwise="check the name.")
    raise ConfigError(f"{path}.py does not exist; {hint}")


def _imported(file: Path, name: str, level: int, names: Sequence[str]) -> ModuleType:
    """A config file that another one imports, with the names that it asks for."""
    words = f"from {'.' * level}{name} import"
    if not names:
        raise ConfigError(f"import names of a config file, as in `{words} model`.")
    if "*" in names:
        raise ConfigError(
            f"a config file cannot be imported with a star: list the names, as in `{words} model,"
            " optimizer`."
        )
    return _with_names(run_file(str(file)), names)


def _with_names(module: ModuleType, names: Sequence[str]) -> ModuleType:
    for name in names:
        if name not in vars(module):
            known = [other for other in vars(module) if not other.startswith("__")]
            raise ConfigError(f"{module.__name__} has no '{name}'; {did_you_mean(name, known)}")
    return module


def _sentence(error: BaseException, file: str) -> str:
    """File, line and reason of an error in a config file."""
    if isinstance(error, SyntaxError):
        where = f"{error.filename or file}, line {error.lineno or 1}"
        return f"{where}: {error.msg}: correct it."
    line, trace = 0, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename in _ran:
            file, line = trace.tb_frame.f_code.co_filename, trace.tb_lineno
        trace = trace.tb_next
    where = f"{file}, line {line}" if line else file
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"{where}: {missing_module(error.name, os.path.dirname(file))}"
    lines = str(error).splitlines() or ["no reason was given"]
    # The further lines of omegaconf's errors name types of its own.
    text = lines[0] if isinstance(error, OmegaConfBaseException) else " ".join(lines)
    if isinstance(error, UserError):
        return f"{where}: {text}"
    return f"{where}: {type(error).__name__}: {text}"


def missing_module(name: str, folder: str) -> str:
    """What to do about a module that cannot be imported by a config file in ``folder``."""
    if name in MODULES:
        return f"the module {name} is now called {MODULES[name]}: import it from there."
    first = name.split(".")[0]
    if (Path(folder) / f"{first}.py").is_file() or (Path(folder) / first).is_dir():
        return (
            f"there is no module {name} on Python's path: write `from .{name} import ...` for the"
            f" file beside the config, or set PYTHONPATH={folder}."
        )
    return (
        f"there is no module {name}: correct its name, install its package, or add its folder to"
        " PYTHONPATH."
    )
