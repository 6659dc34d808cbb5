"""The names of logged values that docs/reading_the_log.md describes."""

import functools
import re
from collections.abc import Iterable
from pathlib import Path

PAGE = Path(__file__).resolve().parents[1] / "docs" / "reading_the_log.md"
# What the words in capital letters on the page stand for.
STANDS_FOR = {
    "GROUP": r"\w+",
    "LAYER": r"\d+",
    "CLASS": r".+",
    "FIGURE": r"(agreement|iou|kl)(_fg)?",
    "NAME": r".+",
    "PART": r"[a-z]+",
    "TERM": r"\w+",
}


@functools.cache
def described() -> re.Pattern:
    """A pattern of all names in the first columns of the tables of the page."""
    section = PAGE.read_text(encoding="utf-8").split("## Every name in metrics.json")[1]
    section = section.split("\n## ")[0]
    cells = re.findall(r"^\| (`[^|]*) \|", section, re.MULTILINE)
    names = [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]
    words = re.compile("|".join(STANDS_FOR))
    return re.compile("|".join(words.sub(lambda w: STANDS_FOR[w[0]], n) for n in names))


def undescribed(names: Iterable[str]) -> list[str]:
    """The names that are not on the page."""
    return sorted(name for name in set(names) if not described().fullmatch(name))
