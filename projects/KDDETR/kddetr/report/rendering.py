"""Pages from the templates of this folder: HTML files that need nothing but themselves."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

from ..checkpoint import atomic_write

TEMPLATES = Path(__file__).parent / "templates"


def render(template: str, values: Mapping[str, Any]) -> str:
    """The text of a page.

    Names of classes and files may hold anything, so all values are escaped but those that a
    template marks as safe.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    return environment.get_template(template).render(values)


def write_page(text: str, file: Path) -> Path:
    """Write a page as a whole or not at all, and return its file."""
    atomic_write(str(file), lambda stream: stream.write(text.encode()))
    return file


def flattened(tree: Any, path: str = "") -> list[tuple[str, str]]:
    """A tree of plain containers as rows of dotted key and value, for a table."""
    if isinstance(tree, Mapping) and tree:
        items = [(f"{path}.{key}" if path else str(key), value) for key, value in tree.items()]
        return [row for key, value in items for row in flattened(value, key)]
    return [(path, as_text(tree))]


def as_text(value: Any) -> str:
    """A value as a person writes it: a number with few digits, a text without quotes."""
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
