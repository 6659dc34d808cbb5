"""The file of results: a line of JSON for each run, added when the run has ended."""

import contextlib
import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kddetr.errors import UsageError

Result = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """One training. Experiments that share a run read the same line of the file.

    Attributes:
        config, overrides, seed, iterations: decide the result.
        same_time_as: the config, overrides and iterations of the run whose time it takes, as JSON;
            it then stands for the iterations, because these depend on the machine. Empty: none.
    """

    config: str
    overrides: tuple[str, ...]
    seed: int
    iterations: int
    same_time_as: str = ""

    @property
    def key(self) -> tuple:
        """Equal for equal runs."""
        length = self.same_time_as or self.iterations
        return self.config, self.overrides, self.seed, length


def job_of(result: Mapping[str, Any]) -> Job:
    """The training that a line of the file is about."""
    names = ("config", "seed", "iterations", "same_time_as")
    return Job(overrides=tuple(result["overrides"]), **{name: result[name] for name in names})


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lets one process at a time change the files of a folder, which is made if it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def replace_text(file: Path, text: str) -> None:
    """Write a file anew; a program that is killed meanwhile leaves the old one."""
    partial = file.with_suffix(".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(file)


class Results:
    """The lines of a file by the runs that they are about; the file need not exist yet.

    Several programs may fill one file: each reads it again before it changes it.

    Raises:
        UsageError: a line is no result.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._lines: dict[tuple, Result] = {}
        self._read()

    def _read(self) -> None:
        file = self.file
        self._lines.clear()
        text = file.read_text(encoding="utf-8") if file.exists() else ""
        for number, line in enumerate(text.splitlines(), 1):
            try:
                result = json.loads(line)
                self._lines[job_of(result).key] = result
            except (ValueError, KeyError, TypeError) as error:
                raise UsageError(
                    f"Line {number} of {file} is no result of an experiment: remove it."
                ) from error

    def get(self, job: Job) -> Result | None:
        """The line about this run; None where there is none."""
        return self._lines.get(job.key)

    def all(self) -> Sequence[Result]:
        """All lines, in the order of the file."""
        return list(self._lines.values())

    def add(self, result: Result) -> None:
        """Write a line; an earlier one about the same run is replaced."""
        key = job_of(result).key
        with locked(self.file.parent):
            self._read()
            repeated = key in self._lines
            self._lines[key] = result
            if repeated:
                self._write()
                return
            with self.file.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(result) + "\n")

    def mark(self, changed: Callable[[Result], bool | None]) -> None:
        """Note in each line whose config has changed since that it has; None leaves it as it is."""
        with locked(self.file.parent):
            self._read()
            marks = [changed(result) for result in self.all()]
            before = [result.get("config_changed", False) for result in self.all()]
            after = [old if mark is None else mark for old, mark in zip(before, marks, strict=True)]
            if before == after:
                return
            for result, mark in zip(self.all(), after, strict=True):
                result.pop("config_changed", None)
                if mark:
                    result["config_changed"] = True
            self._write()

    def _write(self) -> None:
        replace_text(self.file, "".join(json.dumps(r) + "\n" for r in self.all()))
