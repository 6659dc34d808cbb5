"""What a recipe decided, why, and what changes it: as a table, and as comments of the config."""

import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import TextIO

from omegaconf import DictConfig, OmegaConf


@dataclass(frozen=True)
class Decision:
    """One decision.

    Attributes:
        name: what was decided, in a word or two.
        value: the outcome; ``{}`` in it stands for the value of ``key`` in the config.
        why: the reason.
        override: the argument of the command line that changes it.
        key: the dotted key of the config that has it; empty: none.
    """

    name: str
    value: str
    why: str
    override: str
    key: str = ""

    @property
    def comment(self) -> str:
        """The sentence for the config file."""
        shown = "" if self.value == "{}" else f": {self.value}"
        return (
            f"{self.name[:1].upper()}{self.name[1:]}{shown}. {self.why[:1].upper()}{self.why[1:]}."
        )


def settled(
    decisions: Sequence[Decision], draft: DictConfig, cfg: DictConfig, given: Collection[str]
) -> list[Decision]:
    """The decisions with the values of the final config.

    Args:
        decisions: as they were made.
        draft: the config that they made.
        cfg: the same with the overrides of the user.
        given: the dotted keys of these overrides.
    """
    found = []
    for one in decisions:
        if one.key and "{}" in one.value:
            value = OmegaConf.select(cfg, one.key)
            if one.key in given:
                one = replace(one, value="{}", why="as given")
            elif value != OmegaConf.select(draft, one.key):
                one = replace(one, value="{}", why="follows from what was given")
            shown = f"{value:g}" if isinstance(value, float) else str(value) or "nothing"
            one = replace(one, value=one.value.replace("{}", shown))
        found.append(one)
    return found


def print_decisions(decisions: Sequence[Decision], stream: TextIO | None = None) -> None:
    """Print the table: on a terminal drawn by rich where that is installed, else as plain lines."""
    stream = stream or sys.stdout
    if stream.isatty():
        try:
            from rich.console import Console
            from rich.table import Table
        except ImportError:
            pass
        else:
            table = Table(show_lines=True)
            for title in ("", "decided", "why", "change it with"):
                table.add_column(title, overflow="fold")
            for one in decisions:
                table.add_row(
                    f"[bold]{one.name}[/]", *map(_escaped, (one.value, one.why, one.override))
                )
            Console(file=stream).print(table)
            return
    width = max(len(one.name) for one in decisions)
    for one in decisions:
        print(f"{one.name:{width}}  {one.value}", file=stream)
        print(f"{'':{width}}  {one.why}. Change it with {one.override}", file=stream)


def _escaped(text: str) -> str:
    """Text in which rich finds no markup of its own."""
    from rich.markup import escape

    return escape(text)
