"""Run several trainings side by side, one thread each, watch them, and pick up what a kill left."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


class RunFailed(RuntimeError):
    """A training ended with an error; the message says where its log is."""


@dataclass
class Run:
    """One training of a config.

    Attributes:
        name: shown to the reader.
        config: file below configs/.
        output: its folder; a finished run there is not repeated, an unfinished one is resumed.
        iterations: how many.
        overrides: further ``key=value`` of the command line.
    """

    name: str
    config: str
    output: Path
    iterations: int
    overrides: list[str] = field(default_factory=list)

    @property
    def checkpoint(self) -> Path:
        return self.output / "model_final.pth"

    @property
    def finished(self) -> bool:
        return self.checkpoint.is_file() and self.iterations in dict(self.evaluations())

    def metrics(self) -> list[dict]:
        """Lines of the run's metrics.json; the last of an iteration counts, a cut one does not."""
        file = self.output / "metrics.json"
        lines = {}
        for text in file.read_text().splitlines() if file.is_file() else []:
            try:
                line = json.loads(text)
            except json.JSONDecodeError:
                continue
            lines.setdefault(line.get("iteration", -1), {}).update(line)
        return [lines[i] for i in sorted(lines)]

    def evaluations(self) -> list[tuple[int, tuple[float, float]]]:
        """(iterations done, (seconds of training, AP)) of every evaluation so far."""
        found, seconds = [], 0.0
        for line in self.metrics():
            seconds = line.get("train_seconds", seconds)
            if "bbox/AP" in line:
                done = min(line["iteration"] + 1, self.iterations)
                found.append((done, (seconds, line["bbox/AP"])))
        return found

    def status(self) -> str:
        """One short phrase: how far, how good on val."""
        metrics = self.metrics()
        done = min(metrics[-1]["iteration"] + 1, self.iterations) if metrics else 0
        found = self.evaluations()
        score = f", AP {found[-1][1][1]:.1f}" if found else ""
        return f"{self.name} {done}/{self.iterations}{score}"

    def start(self) -> subprocess.Popen:
        """Start or resume it in a process of its own."""
        self.output.mkdir(parents=True, exist_ok=True)
        command = [
            sys.executable,
            str(ROOT / "train_net.py"),
            "--config-file",
            str(ROOT / self.config),
            "--resume",
            f"train.max_iter={self.iterations}",
            f"train.output_dir={self.output}",
            *self.overrides,
        ]
        # One thread a run: two runs that share two cores with two threads each are slower.
        environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        with (self.output / "console.txt").open("a") as log:
            return subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, env=environment, cwd=ROOT
            )


def run_all(
    runs: Sequence[Run],
    *,
    processes: int = 2,
    say: Callable[[str], None] = print,
    every: float = 10.0,
) -> None:
    """Bring all runs to their end, ``processes`` at a time, in the order given.

    Raises:
        RunFailed: one of them ended with an error; the others are stopped, nothing saved is lost.
    """
    waiting = [run for run in runs if not run.finished]
    for run in runs:
        if run.finished:
            say(f"{run.name}: found finished in {shown(run.output)}")
    active: dict[int, tuple[Run, subprocess.Popen]] = {}
    last, shown_line = time.monotonic(), ""
    try:
        while waiting or active:
            while waiting and len(active) < processes:
                run = waiting.pop(0)
                active[id(run)] = (run, run.start())
            time.sleep(0.5)
            for key, (run, process) in list(active.items()):
                if process.poll() is None:
                    continue
                del active[key]
                if process.returncode or not run.finished:
                    raise RunFailed(
                        f"{run.name} stopped with exit code {process.returncode}: the reason is at"
                        f" the end of {shown(run.output / 'console.txt')}. Start this program again"
                        " to go on from its last checkpoint."
                    )
                say(run.status() + " - done")
            line = "   ".join(run.status() for run, _ in active.values())
            if line != shown_line and time.monotonic() - last > every:
                say(line)
                last, shown_line = time.monotonic(), line
    finally:
        for _, process in active.values():
            process.terminate()


def shown(path: Path) -> str:
    """A path as a reader would type it."""
    path = Path(path).resolve()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
