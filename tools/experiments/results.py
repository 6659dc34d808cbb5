"""The file of results: a line of JSON for each run, added when the run has ended."""

import json
from collections.abc import Mapping, Sequence
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


class Results:
    """The lines of a file by the runs that they are about; the file need not exist yet.

    Raises:
        UsageError: a line is no result.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._lines: dict[tuple, Result] = {}
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
        repeated = key in self._lines
        self._lines[key] = result
        if repeated:
            self.write()
            return
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(result) + "\n")

    def write(self) -> None:
        """Write the whole file anew."""
        partial = self.file.with_suffix(".partial")
        partial.write_text("".join(json.dumps(r) + "\n" for r in self.all()), encoding="utf-8")
        partial.replace(self.file)
