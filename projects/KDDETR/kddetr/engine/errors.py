"""The error for everything a user can put right in a config, a command line or a folder."""

import difflib
from collections.abc import Iterable

__all__ = ["ConfigError", "nearest"]


class ConfigError(KeyError, ValueError):
    """One sentence that says what is wrong and what to do; the launcher prints nothing else.

    It is a KeyError too, because an unknown key is what it reports most often.
    """

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


def nearest(name: str, known: Iterable[str]) -> str:
    """`did you mean x?`, or the names there are when none is close."""
    known = sorted(set(known))
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.55)
    if close:
        return f"did you mean {close[0]}?"
    if not known:
        return "nothing is known there."
    listed = ", ".join(known[:20]) + (", ..." if len(known) > 20 else "")
    return f"known are {listed}."
