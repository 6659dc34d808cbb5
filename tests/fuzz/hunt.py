"""A seeded search for examples that break a property, each reduced to the edits that it needs.

An example is a list of edits of something sound: of an annotation file, a config or a checkpoint.
It is drawn from a seed and its number alone, so that it can be run again.
"""

import contextlib
import io
import logging
import random
import time
import traceback
from collections import Counter
from collections.abc import Callable
from itertools import groupby
from typing import Any

import pytest

from kddetr.errors import UserError

Edit = tuple  # the name of a kind of edit, and its arguments
_Example = tuple[str, list[Edit], str]  # seed and number, edits, and what went wrong

LONGEST_SENTENCE = 3000  # characters
LONGEST_LINE = 240  # of a report
MOST_EXAMPLES = 12  # of a kind in a report
LEAST_SHARE = 0.05  # of the examples have to be accepted, and as many refused


class BrokenError(Exception):
    """A property does not hold; the message begins with a few words that name the kind."""


def hunt(
    draw: Callable[[random.Random], list[Edit]],
    check: Callable[[list[Edit]], None],
    request: pytest.FixtureRequest,
) -> None:
    """Draw examples, and fail with one short example of each kind that breaks the property.

    Args:
        draw: the edits of an example.
        check: applies edits to something sound and uses it. A UserError means that it is refused.
        request: of the test; it has the number of examples, the seed and the terminal.
    """
    short, share = request.node.get_closest_marker("examples").args
    count = round(share * request.config.getoption("--fuzz")) or short
    seed, _, only = request.config.getoption("--fuzz-seed").partition("/")
    progress = _Progress(request, 1 if only else count)
    for name in ("kddetr", "detectron2", "fvcore"):  # tests/conftest.py puts them back
        log = logging.getLogger(name)
        log.handlers, log.propagate = [_Quiet()], False
    broken: dict[tuple, _Example] = {}
    kinds: Counter[str] = Counter()
    for number in [int(only)] if only else range(count):
        edits = draw(random.Random(f"{seed}/{number}"))
        kind, words = outcome(check, edits)
        kinds[kind] += 1
        if kind not in ("accepted", "refused"):
            edits = shortest(check, edits, kind)
            words = outcome(check, edits)[1] or words
            broken.setdefault((kind, *map(_shape, edits)), (f"{seed}/{number}", edits, words))
        progress.show(kinds)
    if broken:
        pytest.fail(_report(request, broken, kinds), pytrace=False)
    for kind in ("accepted", "refused"):
        enough = only or kinds[kind] >= max(1, LEAST_SHARE * count)
        assert enough, f"only {kinds[kind]} of {count} examples are {kind}: draw others"


def outcome(check: Callable[[list[Edit]], None], edits: list[Edit]) -> tuple[str, str]:
    """``accepted``, ``refused`` or the kind of failure of an example, and words about it."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            check(edits)
    except UserError as error:
        return fault(str(error)) or "refused", str(error)
    except BrokenError as error:
        return str(error).split(":")[0], str(error)
    except Exception as error:
        return _place(error), "".join(traceback.format_exception(error)[-3:])
    return "accepted", ""


def shortest(check: Callable[[list[Edit]], None], edits: list[Edit], kind: str) -> list[Edit]:
    """The edits without those that a failure of the kind does not need."""
    for edit in list(edits):
        fewer = [other for other in edits if other is not edit]
        if outcome(check, fewer)[0] == kind:
            edits = fewer
    return edits


def fault(sentence: str) -> str:
    """What is wrong with the message of a UserError; empty: nothing."""
    if len(sentence.splitlines()) != 1:
        return "a message that is not one line"
    if len(sentence) > LONGEST_SENTENCE:
        return "a message that is too long"
    if len(sentence.split()) < 4:
        return "a message that is no sentence"
    if sentence.encode("utf-8", "ignore").decode() != sentence:
        return "a message that cannot be printed"
    return "an object's address in a message" if " object at 0x" in sentence else ""


def _place(error: Exception) -> str:
    """The type of an error, and the function of the project that it came from."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "kddetr" in frame.filename] or frames
    file = own[-1].filename.replace("\\", "/").rpartition("kddetr/")[2]
    return f"{type(error).__name__} in {file}, {own[-1].name}"


def _shape(edit: Edit) -> str:
    """An edit without numbers and values: edits of one shape most often fail for one reason."""
    name, *args = edit
    path = args[0] if args else ()
    where = [a for a in (path if isinstance(path, tuple) else args) if isinstance(a, str)]
    return " ".join([name, *where]).partition("=")[0]


def _report(
    request: pytest.FixtureRequest, broken: dict[tuple, _Example], kinds: Counter[str]
) -> str:
    """Every kind of failure, with a short example of each shape of edits that leads to it."""
    text = [f"{kinds.total()} examples: {dict(kinds.most_common())}"]
    for (kind, *_), examples in groupby(sorted(broken.items()), key=lambda item: item[0][:1]):
        for number, (_, (again, edits, words)) in enumerate(examples):
            if not number:
                text += ["", f"--- {kind} ({kinds[kind]} times)"]
                text += [f"    | {line[:LONGEST_LINE]}" for line in words.splitlines()[:12]]
            if number < MOST_EXAMPLES:
                text += [f"  {again}: {', '.join(map(_brief, edits)) or 'no edit'}"]
    text += ["", f"again: make fuzz ARGS='--fuzz-seed S/I -k {request.node.originalname}'"]
    return "\n".join(text)


def _brief(edit: Edit) -> str:
    words = repr(edit)
    return words if len(words) <= LONGEST_LINE else f"{words[:LONGEST_LINE]}..."


class _Quiet(logging.Handler):
    """Shows no message, but makes it, because that may raise an error too."""

    def emit(self, record: logging.LogRecord) -> None:
        record.getMessage().encode()


class _Progress:
    """Prints a line at every tenth of a long search."""

    def __init__(self, request: pytest.FixtureRequest, count: int):
        self._capture = request.config.pluginmanager.getplugin("capturemanager")
        self._name, self._count = request.node.name, count
        self._step = max(1, count // 10)
        self._start = time.monotonic()
        self._shown = bool(request.config.getoption("--fuzz"))

    def show(self, kinds: Counter[str]) -> None:
        """Print how many examples there were, of which outcome."""
        if not self._shown or kinds.total() % self._step:
            return
        seconds, right = time.monotonic() - self._start, kinds["accepted"] + kinds["refused"]
        with self._capture.global_and_fixture_disabled():
            print(
                f"\n{self._name}: {kinds.total()} of {self._count} examples in {seconds:.0f} s,"
                f" {kinds['accepted']} accepted, {kinds['refused']} refused,"
                f" {kinds.total() - right} failures",
                end="",
                flush=True,
            )


def put(tree: Any, path: tuple, value: Any) -> None:
    """Set an entry of nested dictionaries and lists; nothing happens where its place is missing."""
    *outer, last = path
    for key in outer:
        if not _has(tree, key):
            return
        tree = tree[key]
    if isinstance(tree, dict) or _has(tree, last):
        tree[last] = value


def drop(tree: Any, path: tuple) -> None:
    """Remove an entry of nested dictionaries and lists, where it is there."""
    *outer, last = path
    for key in outer:
        if not _has(tree, key):
            return
        tree = tree[key]
    if _has(tree, last):
        del tree[last]


def _has(tree: Any, key: Any) -> bool:
    if isinstance(tree, dict):
        return key in tree
    return isinstance(tree, list) and isinstance(key, int) and -len(tree) <= key < len(tree)
