"""In which words two lists of class names differ.

A class index means something only together with the list of names that it points into, so lists are
compared name by name wherever data and a detector meet.
"""

import re
from collections.abc import Sequence
from itertools import pairwise

_MOST = 3  # names of a kind in one sentence


def class_difference(
    one: Sequence[str],
    other: Sequence[str],
    in_one: str = "the first",
    in_other: str = "the second",
) -> str:
    """How two lists of class names differ, in words; empty where they are equal.

    Args:
        one, other: the names, in the order of the classes.
        in_one, in_other: what the words call the two lists.

    Returns:
        Phrases for the middle of a sentence, of a few hundred characters however long the lists
        are: ``class 1 is 'cat' in the first and 'dog' in the second``.
    """
    one, other = list(one), list(other)
    if one == other:
        return ""
    pairs = enumerate(zip(one, other, strict=False))
    places = [_place(i, a, b, in_one, in_other) for i, (a, b) in pairs if a != b]
    if sorted(one) == sorted(other):
        return f"the same {len(one)} classes in another order: {places[0]}"
    known, theirs = set(one), set(other)
    spelled = {_letters(name): name for name in other if name not in known}
    alike = {name: spelled[_letters(name)] for name in one if _letters(name) in spelled}
    alike = {name: written for name, written in alike.items() if name not in theirs}
    words = []
    if len(one) != len(other):
        words.append(f"{in_one} has {len(one)} classes and {in_other} {len(other)}")
    words += _some(
        [
            f"{_shown(name)} of {in_one} is written {_shown(written)} in {in_other}"
            for name, written in alike.items()
        ]
    )
    words += _exchanged(one, other, in_one, in_other, alike)
    return "; ".join(words or _some(places))  # no words: a name is there twice


def listed(names: Sequence[str]) -> str:
    """How many names there are, and which: ``3 (cat, dog, horse)``; of more than 20 the first
    10.
    """
    some = list(names) if len(names) <= 20 else [*names[:10], f"and {len(names) - 10} more"]
    return f"{len(names)} ({', '.join(some)})"


def _exchanged(
    one: list[str], other: list[str], in_one: str, in_other: str, alike: dict[str, str]
) -> list[str]:
    """Phrases about names that only one of two lists has, but for those that are spelled alike."""
    spelled = {*alike, *alike.values()}
    places = [
        (i, a, b)
        for i, (a, b) in enumerate(zip(one, other, strict=False))
        if a != b and not {a, b} <= spelled
    ]
    renamed = not ({a for _, a, _ in places} & set(other) or {b for _, _, b in places} & set(one))
    if len(one) == len(other) and renamed:
        return _some([_place(*place, in_one, in_other) for place in places])
    words = []
    for names, others, whose in ((one, set(other), in_one), (other, set(one), in_other)):
        if alone := [name for name in names if name not in others and name not in spelled]:
            more = f" and {len(alone) - _MOST} more" if len(alone) > _MOST else ""
            words.append(f"only {whose} has {', '.join(map(_shown, alone[:_MOST]))}{more}")
    at = {name: i for i, name in enumerate(other)}
    shared = [at[name] for name in (alike.get(name, name) for name in one) if name in at]
    if any(a > b for a, b in pairwise(shared)):
        words.append("the classes that both have are in another order")
    return words


def _place(i: int, a: str, b: str, in_one: str, in_other: str) -> str:
    return f"class {i} is {_shown(a)} in {in_one} and {_shown(b)} in {in_other}"


def _some(phrases: list[str]) -> list[str]:
    more = [f"{len(phrases) - _MOST} more differ"] if len(phrases) > _MOST else []
    return phrases[:_MOST] + more


def _letters(name: str) -> str:
    """A name without what is most often typed in another way: capitals, spaces, _ and -."""
    return re.sub(r"[\W_]+", "", name).casefold() or name


def _shown(name: str) -> str:
    words = repr(name)
    return words if len(words) <= 50 else f"{words[:46]}...'"
