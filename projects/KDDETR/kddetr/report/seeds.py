"""Training of pairs: every way of training with every seed, finished runs skipped."""

import itertools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from ..errors import UserError
from .comparison import Comparison, compare_runs
from .run import read_run


def train_pairs(
    ways: Sequence[str],
    seeds: Iterable[int],
    *,
    folder_of: Callable[[str, int], Path],
    train: Callable[[str, int], None],
    say: Callable[[str], None] = print,
) -> Comparison:
    """Train in several ways with several seeds, and compare.

    One seed is finished before the next begins, so that there are whole pairs wherever it stops. It
    can be started again: finished runs are skipped, and ``train`` resumes an unfinished one.

    Args:
        ways: names, such as ``alone`` and ``distilled``.
        seeds: values of ``train.seed``.
        folder_of: the output folder of a way and a seed; the folders of all of them lie beside one
            another, so that the report of each run finds the others.
        train: trains one way with one seed into its folder, or resumes it there; returns when the
            run is finished.
        say: prints a line of progress.

    Raises:
        UserError: a training failed, or left a run that cannot be compared.
    """
    folders = []
    for seed, way in itertools.product(seeds, ways):
        folder = folder_of(way, seed)
        if is_finished(folder):
            say(f"{way}, seed {seed}: found finished in {folder}")
        else:
            say(f"{way}, seed {seed}: trains in {folder}")
            train(way, seed)
        folders.append(folder)
    return compare_runs([read_run(folder) for folder in folders])


def is_finished(folder: Path) -> bool:
    """Whether a folder has a run with its final weights and its final evaluation."""
    try:
        return read_run(folder).is_finished
    except UserError:
        return False
