"""The arguments of a callable with their types, defaults and descriptions, as Markdown."""

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import griffe

_MODULES = re.compile(r"(?:[A-Za-z_]\w*\.)+(?=\w)")
_SHARED = re.compile(r"^( +)(\w+(?:, \w+)+): (.+(?:\n\1 +.+)*)", re.MULTILINE)
_ROLE = re.compile(r":\w+:`~?([\w.]+)`")


@dataclass(frozen=True)
class Argument:
    """One argument: its name, type and default as a config has them, and its meaning as Markdown.

    ``default`` is "" where the argument is required.
    """

    name: str
    type: str
    default: str
    meaning: str


def as_markdown(text: str, links: Mapping[str, str] | None = None) -> str:
    """A text whose roles, such as ``:class:`~kddetr.KDDETR```, have become code.

    Args:
        text: reStructuredText as this project writes it.
        links: addresses by the last part of a name, for names that become links.
    """

    def code(match: re.Match) -> str:
        name = match[1].split(".")[-1]
        address = (links or {}).get(name)
        return f"[`{name}`]({address})" if address else f"`{name}`"

    return _ROLE.sub(code, text).replace("``", "`")


def one_argument_a_line(text: str) -> str:
    """A docstring in which ``shift, scale: ...`` has become an entry for each of the names."""

    def entries(match: re.Match) -> str:
        indent, names, words = match.groups()
        return "\n".join(f"{indent}{name}: {words}" for name in names.split(", "))

    return _SHARED.sub(entries, text)


def on_one_line(text: str, links: Mapping[str, str] | None = None) -> str:
    """:func:`as_markdown` for a cell of a table."""
    return " ".join(as_markdown(text, links).split())


def summary(thing: Callable) -> str:
    """The first paragraph of the docstring."""
    return (inspect.getdoc(thing) or "").split("\n\n")[0]


def arguments(thing: Callable, links: Mapping[str, str] | None = None) -> list[Argument]:
    """What a class or a function takes, in the order of its signature.

    Args:
        thing: its docstring describes the arguments in a section ``Args``; one of the class's
            parents may describe what it inherits.
        links: see :func:`as_markdown`.
    """
    described = _described(thing)
    found = []
    for name, parameter in inspect.signature(thing).parameters.items():
        star = "**" if parameter.kind is parameter.VAR_KEYWORD else ""
        required = parameter.default is parameter.empty
        found.append(
            Argument(
                name=star + name,
                type=type_text(parameter.annotation),
                default="" if required else value_text(parameter.default),
                meaning=on_one_line(described.get(name, ""), links),
            )
        )
    return found


def _described(thing: Callable) -> dict[str, str]:
    """The descriptions by name; of a class also those of its parents."""
    found: dict[str, str] = {}
    for owner in reversed(inspect.getmro(thing)) if inspect.isclass(thing) else (thing,):
        text = owner.__doc__ or ""
        if "Args:" in text:  # other parents, such as PyTorch's, write in another style
            docstring = griffe.Docstring(one_argument_a_line(inspect.cleandoc(text)))
            for section in docstring.parse("google", warnings=False):
                if section.kind is griffe.DocstringSectionKind.parameters:
                    found |= {entry.name: entry.description for entry in section.value}
    return found


def type_text(annotation: Any) -> str:
    """An annotation in the words of a config, without the modules that its names are from."""
    if annotation is inspect.Parameter.empty:
        return ""
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return _MODULES.sub("", text).replace(" | ", " or ").replace("None", "null")


def value_text(default: Any) -> str:
    """A default as a config or an override has it."""
    words = {None: "null", True: "true", False: "false"}
    if default is None or isinstance(default, bool):
        return words[default]
    return repr(list(default) if isinstance(default, tuple) else default).replace("'", '"')
