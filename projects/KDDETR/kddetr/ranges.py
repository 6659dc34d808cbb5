"""Checks of constructor arguments: each raises a ValueError that names the argument and its value.

The arguments are given by name: ``whole(1, num_queries=300, num_classes=80)``.
"""

import math
from collections.abc import Iterable
from numbers import Integral, Real


def whole(least: int, **arguments: object) -> None:
    """Check that arguments are whole numbers of at least ``least``; True and 10.0 are not whole.

    Raises:
        ValueError: an argument is something else.
    """
    for name, value in arguments.items():
        if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
            raise ValueError(f"{name} must be a whole number of at least {least}, not {value!r}.")


def positive(**arguments: object) -> None:
    """Check that arguments are finite numbers above 0.

    Raises:
        ValueError: an argument is something else.
    """
    for name, value in arguments.items():
        if not _within(value, 0, math.inf) or value == 0:
            raise ValueError(f"{name} must be a number above 0, not {value!r}.")


def not_negative(**arguments: object) -> None:
    """Check that arguments are finite numbers of at least 0.

    Raises:
        ValueError: an argument is something else.
    """
    for name, value in arguments.items():
        if not _within(value, 0, math.inf):
            raise ValueError(f"{name} must be a number of at least 0, not {value!r}.")


def fraction(**arguments: object) -> None:
    """Check that arguments are numbers from 0 to 1.

    Raises:
        ValueError: an argument is something else.
    """
    for name, value in arguments.items():
        if not _within(value, 0, 1):
            raise ValueError(f"{name} must be a number from 0 to 1, not {value!r}.")


def one_of(known: Iterable[str], **arguments: object) -> None:
    """Check that arguments are one of the ``known`` names.

    Raises:
        ValueError: an argument is something else.
    """
    known = list(known)
    for name, value in arguments.items():
        if value not in known:
            listed = ", ".join(map(repr, known))
            raise ValueError(f"{name} must be one of {listed}, not {value!r}.")


def names(whose: str, known: Iterable[str], **arguments: object) -> None:
    """Check that arguments are lists of different ``known`` names, at least one each; ``whose``
    says for the message what these are.

    Raises:
        ValueError: an argument is no such list; the message gives all known names.
    """
    known = list(known)
    for name, value in arguments.items():
        listed = [] if isinstance(value, str) or not isinstance(value, Iterable) else list(value)
        if not listed or [x for x in listed if x not in known] or len(set(listed)) < len(listed):
            raise ValueError(
                f"{name} must be a list of different names among {whose} ({', '.join(known)}), not"
                f" {value!r}."
            )


def _within(value: object, low: float, high: float) -> bool:
    """Whether ``value`` is a finite real number from ``low`` to ``high``."""
    if not isinstance(value, Real) or isinstance(value, bool):
        return False
    try:
        number = float(value)
    except OverflowError:  # a whole number of more than 308 digits
        return False
    return math.isfinite(number) and low <= number <= high
