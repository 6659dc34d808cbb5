"""Run several trainings side by side, one thread each, watch them, and pick up what a kill left."""

import contextlib
import fcntl
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import OmegaConf

from kddetr.checkpoint import asset
from kddetr.engine import load_config

ROOT = Path(__file__).resolve().parents[1]


class RunFailed(RuntimeError):
    """A training ended with an error; the message says where its log is."""


@dataclass
class Run:
    """One training of a config.

    Attributes:
        name: shown to the reader.
        config: file below configs/.
        output: its folder; a finished run there is not repeated, an unfinished one is resumed, and
            one of other settings is neither: it is left alone and said.
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
        """Whether it is there whole.

        Raises:
            RunFailed: the folder holds a run of other settings.
        """
        self._claim()
        return self.checkpoint.is_file() and self.iterations in dict(self.evaluations())

    def settings(self) -> str:
        """A fingerprint of all that decides the outcome: the config, overrides, bundled weights."""
        changes = [*self.overrides, f"train.max_iter={self.iterations}", "train.output_dir=."]
        text = OmegaConf.to_yaml(load_config(str(ROOT / self.config), changes))
        digest = hashlib.sha256(text.encode())
        if "kddetr://" in text:
            for file in sorted(asset("kddetr://").glob("*.pth")):
                digest.update(file.read_bytes())
        return digest.hexdigest()

    def _claim(self) -> None:
        """Note whose folder it is, once."""
        note, settings = self.output / "settings", self.settings()
        if not note.is_file() and not (self.output / "metrics.json").is_file():
            self.output.mkdir(parents=True, exist_ok=True)
            note.write_text(settings)
        elif not note.is_file() or note.read_text() != settings:
            raise RunFailed(
                f"{shown(self.output)} holds a run of other settings (iterations, config, teacher):"
                " remove that folder, or write to another one."
            )

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
        self._claim()
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
        # The lock goes to the training and ends with it, even where this program was killed before.
        with (
            (self.output / "console.txt").open("a") as log,
            (self.output / "lock").open("w") as lock,
        ):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RunFailed(
                    f"Another process is still training in {shown(self.output)}: wait for it or"
                    " stop it."
                ) from None
            return subprocess.Popen(
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=ROOT,
                pass_fds=[lock.fileno()],
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
        if run not in waiting:
            say(f"{run.name}: found finished in {shown(run.output)} (remove it to train anew)")
    active: dict[int, tuple[Run, subprocess.Popen]] = {}
    last, shown_line = time.monotonic(), ""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
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
        signal.signal(signal.SIGTERM, before)
        for _, process in active.values():
            process.terminate()
        for _, process in active.values():
            process.wait()


def shown(path: Path) -> str:
    """A path as a reader would type it."""
    path = Path(path).resolve()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


@contextlib.contextmanager
def one_sentence() -> Iterator[None]:
    """End a program in one sentence where a user can put something right, or stopped it."""
    try:
        yield
    except KeyboardInterrupt:
        raise SystemExit("\nstopped: the same command goes on where it was") from None
    except (RuntimeError, ValueError, OSError, ImportError) as error:
        raise SystemExit(f"error: {error}") from error
