"""A config written as a readable Python file: imports, LazyCalls, and comments that say why.

The file states everything that the config does, so it changes with no other file. Loaded by
:func:`kddetr.engine.load_config` it is the same config again.
"""

import importlib
import keyword
from collections.abc import Callable, Iterator, Mapping
from functools import reduce
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ..checkpoint import atomic_write
from ..engine.config import train_defaults
from ..engine.config.calls import located, walk
from ..engine.config.schema import SECTIONS
from ..errors import ConfigError

_WIDTH = 100  # of a line
_ORDER = ("model", "dataloader", "optimizer", "lr_multiplier", "train")


def write_config(
    cfg: DictConfig, file: str, *, about: str = "", comments: Mapping[str, str] | None = None
) -> None:
    """Write a config as a Python file, completely or not at all.

    Args:
        cfg: a config as :func:`kddetr.engine.load_config` returns it; interpolations are kept.
        file: its path, with the ending ``.py``.
        about: the file's docstring.
        comments: sentences by the dotted key of the value that they explain, such as
            ``train.max_iter``, or by the name of a section.

    Raises:
        ConfigError: the config holds an object that no Python file can state, or a class that is
            defined inside of a config file.
        StorageError: the file cannot be written.
    """
    text = config_text(cfg, about=about, comments=comments)
    atomic_write(file, lambda stream: stream.write(text.encode()))


def config_text(
    cfg: DictConfig, *, about: str = "", comments: Mapping[str, str] | None = None
) -> str:
    """The text of :func:`write_config`."""
    tree = OmegaConf.to_container(cfg, resolve=False)
    tree["train"] = _changed(tree.get("train") or {}, train_defaults())
    writer = _Writer(_imported_names(tree), comments or {})
    parts = [f'"""{_docstring(about)}"""\n'] if about else []
    parts.append(writer.imports())
    for section in sorted(tree, key=lambda name: (*_ORDER, name).index(name)):
        if section in SECTIONS and tree[section] is not None:
            parts.append(writer.statement(section, tree[section]))
    return "\n".join(parts)


def _docstring(about: str) -> str:
    text = about.strip().replace("\\", "\\\\").replace('"""', "'''")
    return f"{text}\n" if "\n" in text else text


def _changed(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """What differs from the defaults of the section ``train``; groups are compared inside."""
    changed: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict) and isinstance(defaults.get(key), dict):
            if inner := _changed(value, defaults[key]):
                changed[key] = inner
        elif key not in defaults or value != defaults[key]:
            changed[key] = value
    return changed


def _objects(tree: Any) -> Iterator[tuple[str, Any]]:
    """The dotted keys of the functions and classes in a config, and these themselves."""
    for path, value in walk(tree):
        if path.endswith("._target_") and not isinstance(value, Mapping):
            yield path, located(value)
        elif not isinstance(value, str | int | float | dict | list | None):
            yield path, value


def _imported_names(tree: Mapping[str, Any]) -> dict[Callable, tuple[str, str, str]]:
    """Of every function and class: the module to import from, the name there, and the name in the
    file; these differ where two have the same name.
    """
    found: dict[Callable, tuple[str, str, str]] = {}
    taken = {"L": "detectron2.config.LazyCall"} | {name: name for name in SECTIONS}
    for path, value in _objects(tree):
        if value in found:
            continue
        module, name = _place(value, path)
        outer, *inner = name.split(".")
        here = outer
        while taken.setdefault(here, f"{module}.{outer}") != f"{module}.{outer}":
            here = f"{module.split('.')[0]}_{here}" if here == outer else f"{here}_"
        found[value] = module, outer, ".".join([here, *inner])
    return found


def _place(value: Any, path: str) -> tuple[str, str]:
    """The shortest public module that has a function or class, and its name there."""
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", "")
    is_in_file = str(module).endswith(".py") or module == "__main__"
    if not callable(value) or not module or not name or "<" in name or is_in_file:
        what = f"{name} of {module}" if is_in_file else repr(value)
        raise ConfigError(
            f"{path.removesuffix('._target_')} is {what}, which a config file of its own cannot"
            " import: put it into a module on Python's path, and import it in the config."
        )
    names, parts = name.split("."), module.split(".")
    for end in range(1, len(parts) + 1):
        candidate = ".".join(parts[:end])
        if any(part.startswith("_") for part in parts[:end]) and end < len(parts):
            continue
        try:
            found = reduce(getattr, names, importlib.import_module(candidate))
        except (ImportError, AttributeError):
            continue
        if found == value:
            return candidate, name
    return module, name


class _Writer:
    """Writes values as Python, with the names of what is imported."""

    def __init__(
        self, names: Mapping[Callable, tuple[str, str, str]], comments: Mapping[str, str]
    ) -> None:
        self.names = names
        self.comments = comments

    def imports(self) -> str:
        """The import lines: other packages, then this one."""
        lines: dict[str, set[str]] = {"detectron2.config": {"LazyCall as L"}}
        for module, name, here in self.names.values():
            outer = here.split(".")[0]
            lines.setdefault(module, set()).add(name if name == outer else f"{name} as {outer}")
        blocks: tuple[list[str], list[str]] = ([], [])
        for module in sorted(lines):
            block = blocks[module.split(".")[0] == "kddetr"]
            block.append(_import_line(module, sorted(lines[module])))
        return "\n\n".join("\n".join(block) for block in blocks if block) + "\n"

    def statement(self, section: str, value: Any) -> str:
        """One section, such as ``model = L(dino)(...)``."""
        lines = self.value(value, section, len(f"{section} = "))
        lines[0] = f"{section} = {lines[0]}"
        return "\n".join([*self.comment(section), *lines]) + "\n"

    def comment(self, path: str, indent: int = 0) -> list[str]:
        """The comment of a key, broken to the line length."""
        if path not in self.comments:
            return []
        lines, line = [], ""
        for word in self.comments[path].split():
            if line and indent + len(line) + len(word) + 3 > _WIDTH:
                lines.append(line)
                line = ""
            line = f"{line} {word}".strip()
        return [" " * indent + f"# {text}" for text in [*lines, line]]

    def value(self, value: Any, path: str, used: int, indent: int = 0) -> list[str]:
        """The lines of a value.

        Args:
            value: in plain containers.
            path: its dotted key.
            used: the characters in front of it in its line.
            indent: of the line that it begins in.
        """
        if not isinstance(value, dict | list):
            return [self.word(value)]
        is_call = isinstance(value, dict) and "_target_" in value
        opening, closing = "{}" if isinstance(value, dict) else "[]"
        if is_call:
            opening, closing = f"L({self.word(located(value['_target_']))})(", ")"
        items = list(value.items()) if isinstance(value, dict) else list(enumerate(value))
        items = [(key, inner) for key, inner in items if not (is_call and key == "_target_")]
        is_named = is_call and all(_is_argument(key) for key, _ in items)
        if is_call and not is_named:
            opening += "**{"
            closing = "}" + closing
        starts = [self.start(key, value, is_named) for key, _ in items]
        paths = [f"{path}.{key}" for key, _ in items]
        inside = [
            self.value(inner, where, indent + 4 + len(start) + 1, indent + 4)
            for start, where, (_, inner) in zip(starts, paths, items, strict=True)
        ]
        has_comment = any(where in self.comments for where in paths)
        if not has_comment and all(len(lines) == 1 for lines in inside):
            short = ", ".join(start + lines[0] for start, lines in zip(starts, inside, strict=True))
            if used + len(opening + short + closing) + 1 <= _WIDTH:
                return [opening + short + closing]
        lines = [opening]
        for start, where, own in zip(starts, paths, inside, strict=True):
            lines += self.comment(where, indent + 4)
            lines += [" " * (indent + 4) + start + own[0], *own[1:-1]]
            if len(own) > 1:
                lines.append(own[-1])
            lines[-1] += ","
        return [*lines, " " * indent + closing]

    @staticmethod
    def start(key: Any, container: dict | list, is_named: bool) -> str:
        """What stands in front of a value: ``key=`` in a call, ``"key": `` in a dictionary."""
        if isinstance(container, list):
            return ""
        return f"{key}=" if is_named else f"{_quoted(key)}: "

    def word(self, value: Any) -> str:
        """A single value."""
        if isinstance(value, str):
            return _quoted(value)
        if isinstance(value, float) and value in (float("inf"), float("-inf")):
            return f'float("{value}")'
        if isinstance(value, bool | int | float | None):
            return repr(value)
        return self.names[value][2]


def _is_argument(key: Any) -> bool:
    return isinstance(key, str) and key.isidentifier() and not keyword.iskeyword(key)


def _quoted(text: Any) -> str:
    """A text in double quotes, as far as it has none itself."""
    written = repr(text)
    if isinstance(text, str) and written.startswith("'") and '"' not in text:
        return f'"{written[1:-1]}"'.replace("\\'", "'")
    return written


def _import_line(module: str, names: list[str]) -> str:
    line = f"from {module} import {', '.join(names)}"
    if len(line) <= _WIDTH:
        return line
    inside = "".join(f"    {name},\n" for name in names)
    return f"from {module} import (\n{inside})"
