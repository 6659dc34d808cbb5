"""The keys of the section ``train`` with the comments that explain them in the source."""

import ast
import inspect
import re
from collections.abc import Iterator
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from typing import Any

from kddetr.engine.config.defaults import TrainSection

from .docstrings import Argument, on_one_line, type_text, value_text


@dataclass(frozen=True)
class Group:
    """The keys of one dataclass: their common beginning, what the group is for, and each key by its
    whole dotted name.
    """

    prefix: str
    meaning: str
    keys: list[Argument]


def groups(section: type = TrainSection, prefix: str = "train") -> Iterator[Group]:
    """The keys of a dataclass that are no groups, then those of each group inside of it."""
    comments = _comments(section)
    inner: list[Field] = [f for f in fields(section) if is_dataclass(f.type)]
    yield Group(
        prefix,
        on_one_line(inspect.getdoc(section) or ""),
        [
            Argument(
                name=f"{prefix}.{f.name}",
                type=type_text(f.type),
                default=value_text(_default(f)),
                meaning=on_one_line(comments.get(f.name, "")),
            )
            for f in fields(section)
            if f not in inner
        ],
    )
    for f in inner:
        yield from groups(f.type, f"{prefix}.{f.name}")


def _default(entry: Field) -> Any:
    return entry.default if entry.default_factory is MISSING else entry.default_factory()


def _comments(section: type) -> dict[str, str]:
    """The comment above each field, and the one at its end, by the name of the field."""
    lines = inspect.cleandoc("\n" + inspect.getsource(section)).splitlines()
    (tree,) = ast.parse("\n".join(lines)).body
    assert isinstance(tree, ast.ClassDef)
    found: dict[str, str] = {}
    for node in tree.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            above, first = [], node.lineno - 1  # counted from 0
            while lines[first - 1].lstrip().startswith("#"):
                first -= 1
                above.insert(0, lines[first].lstrip("# "))
            rest = lines[node.end_lineno - 1].encode()[node.end_col_offset :].decode()
            end = re.sub(r"^\s*#\s*", "", rest)
            found[node.target.id] = "; ".join(part for part in (" ".join(above), end) if part)
    return found
