"""The errors that a user can put right, and the hint that names the closest known name.

Every program runs inside of :func:`exit_on_user_error`, which ends it with one sentence and exit
code 2 where the user can put the error right. Any other error keeps its traceback.
"""

import contextlib
import difflib
import sys
from collections.abc import Iterable, Iterator

LONGEST = 2500  # characters of a message, which may quote what a user or a file has given


def one_line(words: object, longest: int) -> str:
    """Text that is safe to print: on one line, and of about ``longest`` characters at most."""
    line = "".join(c if c.isprintable() else " " for c in str(words))
    return line if len(line) <= longest else f"{line[: longest * 3 // 4]}...{line[-longest // 4 :]}"


def _sentence(words: object) -> str:
    """A message on one line, without the traceback that a loading process puts in front of it."""
    text = str(words)
    if "Original Traceback" in text:
        text = text.strip().splitlines()[-1]
    return one_line(text, LONGEST)


class UserError(Exception):
    """Something that the user can put right; the message is one sentence that says what to do."""

    def __str__(self) -> str:
        # A KeyError, which one of the errors below also is, would show the quoted repr instead.
        return _sentence(self.args[0]) if self.args else ""


class UsageError(UserError, ValueError):
    """Parts or inputs that do not go together, such as detectors with different classes.

    An argument of a constructor that is out of range raises a plain ValueError instead, which
    :func:`kddetr.engine.build` turns into a :class:`ConfigError`.
    """


class ConfigError(UserError, KeyError, ValueError):
    """A mistake in a config file, a command line or an output folder.

    It is a KeyError too, because it most often reports an unknown key.
    """


class DatasetError(UserError, ValueError):
    """A data set that cannot be used."""


class CheckpointError(UserError, RuntimeError):
    """A checkpoint that is missing, damaged, unsafe to read, or does not fit the model."""


class StorageError(UserError, OSError):
    """A file cannot be written: the disk is full, a quota is used up, or writing is not allowed."""


class RenamedError(UserError, ImportError):
    """An import of a name that an earlier version had; the message says today's name."""


class DivergedError(UserError, FloatingPointError):
    """A loss, a gradient or a predicted box is infinite or NaN.

    In training the weights are those of the step before.
    """


def did_you_mean(
    name: str,
    known: Iterable[str],
    *,
    otherwise: str | None = None,
    count: int = 1,
    cutoff: float = 0.55,
) -> str:
    """The end of an error message: the known names that are closest to a wrong one; upper and lower
    case do not matter.

    Args:
        name: what was given.
        known: the names that would have been right.
        otherwise: the hint where no known name is close; None: a list of the known names.
        count: how many close names to give at most.
        cutoff: how similar a close name must be, from 0 to 1.

    Returns:
        ``did you mean dino_r50?``, or the other hint.
    """
    spelled = {name.lower(): name for name in sorted(set(known))}
    close = difflib.get_close_matches(name.lower(), spelled, n=count, cutoff=cutoff)
    if close:
        return f"did you mean {' or '.join(spelled[match] for match in close)}?"
    if otherwise is not None:
        return otherwise
    if not spelled:
        return "no name is known there."
    names = list(spelled.values())
    listed = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
    return f"known are {listed}."


@contextlib.contextmanager
def exit_on_user_error(*, quiet: bool = False) -> Iterator[None]:
    """Ends a program with one sentence and exit code 2 where the user can put the error right.

    Besides :class:`UserError` this is an error of the operating system (a full disk) or a package
    that is not installed. ``quiet`` leaves the sentence to another process.
    """
    try:
        yield
    except (UserError, OSError, ModuleNotFoundError) as error:
        text = _sentence(error)
        if not quiet:
            print(f"error: {text}", file=sys.stderr, flush=True)
        raise SystemExit(2) from error
