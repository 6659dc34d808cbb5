"""Reading of ``metrics.json``, which a training writes into its output folder."""

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from ..checkpoint import atomic_write

DROPPED = "metrics_dropped.json"


def read_metrics(output_dir: str | os.PathLike) -> list[dict]:
    """The metrics of a training, one dictionary per iteration, in the order of the iterations.

    A training writes several lines about an iteration that ends with an evaluation, and writes an
    iteration again when it resumes from an earlier checkpoint: later values replace earlier ones. A
    line that was cut off or is none is left out, and without the file the list is empty.

    Returns:
        dictionaries with ``iteration``, counted from 0, and the names and values of the metrics,
        such as ``total_loss``, ``train_seconds`` and ``bbox/AP`` (percent).
    """
    merged: dict[int, dict] = {}
    for _, line in _lines(Path(output_dir, "metrics.json")):
        merged.setdefault(line["iteration"], {}).update(line)
    return [merged[iteration] for iteration in sorted(merged)]


def renumber(output_dir: str | os.PathLike, done: Callable[[int], int], copy: str) -> None:
    """Count the iterations in ``metrics.json`` in another unit, such as another batch.

    Otherwise an evaluation early in the run could pass for one of its end.

    Args:
        output_dir: folder of the training.
        done: from a number of iterations that were done to their new number.
        copy: name of the file in which the old lines are kept.
    """
    file = Path(output_dir, "metrics.json")
    lines = []
    for _, line in _lines(file):
        line["iteration"] = max(done(line["iteration"] + 1), 1) - 1
        lines.append(json.dumps(line, sort_keys=True) + "\n")
    if lines:
        before = file.read_bytes()
        atomic_write(str(file.with_name(copy)), lambda stream: stream.write(before))
        atomic_write(str(file), lambda stream: stream.write("".join(lines).encode()))


def go_back(output_dir: str | os.PathLike, start: int) -> None:
    """Move what ``metrics.json`` says of iterations after ``start`` to ``metrics_dropped.json``,
    because the run trains them again, or never.

    Otherwise an evaluation of the run before could pass for one of this run.

    Args:
        output_dir: folder of the training.
        start: how many iterations are done. The evaluation after the last iteration of a run has
            this number too, and stays.
    """
    file = Path(output_dir, "metrics.json")
    kept, dropped = [], []
    for text, line in _lines(file):
        is_later = line["iteration"] > start or start == 0
        (dropped if is_later else kept).append(f"{text}\n")
    if dropped:
        with open(file.with_name(DROPPED), "a") as stream:
            stream.writelines(dropped)
        atomic_write(str(file), lambda stream: stream.write("".join(kept).encode()))


def _lines(file: Path) -> Iterator[tuple[str, dict]]:
    """The lines of ``metrics.json`` about an iteration, as text and as read, without any that is
    cut off.
    """
    for text in file.read_text(errors="replace").splitlines() if file.is_file() else []:
        with contextlib.suppress(ValueError, RecursionError):
            line = json.loads(text)
            if isinstance(line, dict) and isinstance(line.get("iteration"), int):
                yield text, line
