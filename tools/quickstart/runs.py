"""Trainings that run side by side with one thread each, are watched, and resume after a stop."""

import contextlib
import fcntl
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from kddetr.checkpoint import asset
from kddetr.engine import load_config, train_defaults
from kddetr.engine.metrics import read_metrics
from kddetr.errors import UserError, exit_on_user_error
from kddetr.quickstart import quickstart_root

ROOT = Path(__file__).resolve().parents[2]
# The keys of ``train`` that fingerprints have had from the start. A later key changes one only
# where it is not at its default, so that the fingerprints of earlier runs stay.
FIRST_KEYS = {
    *("output_dir", "init_checkpoint", "classes", "max_iter", "time_limit", "batch_scaling"),
    *("seed", "device", "amp", "compile", "clip_grad", "ddp", "checkpointer"),
    *("eval_period", "best_metric", "log_period"),
}


class RunFailed(UserError, RuntimeError):
    """A training that ended with an error, or that cannot start in its folder."""


@dataclass
class Run:
    """One training of a config.

    Attributes:
        name: for messages.
        config: the config file, relative to the project's root.
        output: the output folder. A finished run in it is not repeated, and an unfinished run is
            resumed; a run with other settings raises :class:`RunFailed`.
        iterations: of the training.
        overrides: further ``key=value`` of the command line.
    """

    name: str
    config: str
    output: Path
    iterations: int
    overrides: list[str] = field(default_factory=list)

    @property
    def checkpoint(self) -> Path:
        """The weights that the finished training leaves."""
        return self.output / "model_final.pth"

    @property
    def finished(self) -> bool:
        """Whether the final weights and the final evaluation are in the folder.

        Raises:
            RunFailed: the folder holds a run with other settings.
        """
        self._claim_folder()
        return self.checkpoint.is_file() and self.iterations in dict(self.evaluations())

    def settings(self) -> str:
        """A fingerprint of all that decides the result: :meth:`recipe` and :meth:`weights`."""
        recipe, weights = self.recipe(), self.weights()
        return hashlib.sha256((recipe + weights).encode()).hexdigest() if weights else recipe

    def recipe(self) -> str:
        """A fingerprint of config, overrides and bundled weights, the same on every machine."""
        cfg = self._config()
        usual = train_defaults()
        # Which do not change the training.
        for key in ("watch_period", "watch_images", "report", "report_images"):
            cfg.train.pop(key, None)
        for key in usual.keys() & cfg.train.keys() - FIRST_KEYS:
            if cfg.train[key] == usual[key]:
                del cfg.train[key]
        text = OmegaConf.to_yaml(cfg)
        # Paths of this machine.
        text = text.replace(str(quickstart_root()), "quickstart").replace(f"{ROOT}/", "")
        digest = hashlib.sha256(text.encode())
        if "kddetr://" in text:
            for file in sorted(asset("kddetr://").glob("*.pth")):
                digest.update(file.read_bytes())
        return digest.hexdigest()

    def weights(self) -> str:
        """A fingerprint of the files of other runs that the config names, such as the weights of a
        teacher; empty where there is none.
        """
        named = dict.fromkeys(_strings(OmegaConf.to_container(self._config())))
        files = [ROOT / name for name in named if name.endswith(".pth")]
        files = [file for file in files if file.is_file()]
        digest = hashlib.sha256()
        for file in files:
            digest.update(file.read_bytes())
        return digest.hexdigest() if files else ""

    def _config(self) -> DictConfig:
        changes = [*self.overrides, f"train.max_iter={self.iterations}", "train.output_dir=."]
        return load_config(str(ROOT / self.config), changes)

    def _claim_folder(self) -> None:
        """Writes the fingerprint into a new folder, or compares it with that of an old one."""
        note, settings = self.output / "settings", self.settings()
        if not note.is_file() and not (self.output / "metrics.json").is_file():
            self.output.mkdir(parents=True, exist_ok=True)
            note.write_text(settings)
        elif not note.is_file() or note.read_text() != settings:
            raise RunFailed(
                f"{shown(self.output)} holds a run with other settings (iterations, config,"
                " teacher): remove that folder, or choose another output folder."
            )

    def evaluations(self) -> list[tuple[int, tuple[float, float]]]:
        """(iterations done, (seconds of training, AP)) of every evaluation so far."""
        found, seconds = [], 0.0
        for line in read_metrics(self.output):
            seconds = line.get("train_seconds", seconds)
            if "bbox/AP" in line:
                done = min(line["iteration"] + 1, self.iterations)
                found.append((done, (seconds, line["bbox/AP"])))
        return found

    def status(self) -> str:
        """One short phrase: the iterations done, and the last AP on the validation images."""
        metrics = read_metrics(self.output)
        done = min(metrics[-1]["iteration"] + 1, self.iterations) if metrics else 0
        found = self.evaluations()
        score = f", AP {found[-1][1][1]:.1f}" if found else ""
        return f"{self.name} {done}/{self.iterations}{score}"

    def start(self) -> subprocess.Popen:
        """Starts or resumes the training in a process of its own.

        Raises:
            RunFailed: the folder holds a run with other settings, or another process trains in it.
        """
        self._claim_folder()
        command = [
            sys.executable,
            str(ROOT / "train_net.py"),
            "--config-file",
            str(ROOT / self.config),
            "--resume",
            f"train.max_iter={self.iterations}",
            f"train.output_dir={self.output}",
            "train.report=false",  # these programs show their results themselves
            *self.overrides,
        ]
        # One thread per run: two runs with two threads each are slower on two cores.
        environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        # The training inherits the lock and holds it to its end, even if this program is killed.
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


def _strings(node: object) -> Iterator[str]:
    """All texts in a nested dictionary or list."""
    if isinstance(node, dict):
        node = list(node.values())
    if isinstance(node, list):
        for part in node:
            yield from _strings(part)
    elif isinstance(node, str):
        yield node


def run_all(
    runs: Iterable[Run | None],
    *,
    processes: int = 2,
    say: Callable[[str], None] = print,
    every: float = 10.0,
    finished: Callable[[Run], None] = lambda run: None,
    failed: Callable[[Run, str], None] | None = None,
) -> None:
    """Runs all trainings to their end, in the order given.

    Args:
        runs: finished ones are skipped. The next one is taken when a process is free; None says
            that it depends on a training that has not ended yet.
        processes: how many train at the same time.
        say: prints a line of progress.
        every: seconds between two lines about unfinished runs, at least.
        finished: is called with each finished run, after the next one has been started.
        failed: is called with a run that failed, and the reason; None: the first failure stops all.

    Raises:
        RunFailed: a training ended with an error. The others are stopped; their last checkpoints
            remain.
    """
    waiting = iter(runs)
    active: dict[int, tuple[Run, subprocess.Popen]] = {}
    last, shown_line, more = time.monotonic(), "", True
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    try:
        while more or active:
            ended = _ended(active, say, failed)
            while more and len(active) < processes:
                try:
                    run = next(waiting)
                except StopIteration:
                    more = False
                    break
                if run is None:
                    break
                ended += _started(run, active, say, failed)
            for run in ended:
                finished(run)
            if not ended and (more or active):
                time.sleep(0.5)
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


def _started(run: Run, active: dict, say: Callable, failed: Callable | None) -> list[Run]:
    """Start a run; returns it if it was finished before."""
    try:
        if run.finished:
            say(f"{run.name}: found finished in {shown(run.output)} (remove it to train anew)")
            return [run]
        active[id(run)] = (run, run.start())
    except RunFailed as error:
        if failed is None:
            raise
        failed(run, str(error))
    return []


def _ended(active: dict, say: Callable, failed: Callable | None) -> list[Run]:
    """The runs that have ended as they should since the last call; they leave ``active``."""
    found = []
    for key, (run, process) in list(active.items()):
        if process.poll() is None:
            continue
        del active[key]
        if process.returncode or not run.finished:
            reason = (
                f"{run.name} stopped with exit code {process.returncode}: the reason is at the end"
                f" of {shown(run.output / 'console.txt')}. Start this program again to go on from"
                " the last checkpoint."
            )
            if failed is None:
                raise RunFailed(reason)
            failed(run, reason)
            continue
        say(run.status() + " - done")
        found.append(run)
    return found


def shown(path: Path) -> str:
    """The path relative to the current folder, if it is inside of it."""
    path = Path(path).resolve()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


@contextlib.contextmanager
def program() -> Iterator[None]:
    """Ends a program in one sentence after an error of the user or Ctrl-C."""
    with exit_on_user_error():
        try:
            yield
        except KeyboardInterrupt:
            raise SystemExit("\nstopped: the same command goes on from here") from None
