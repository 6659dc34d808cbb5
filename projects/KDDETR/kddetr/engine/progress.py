"""The display of a run on a terminal: how far it is, its losses, and its AP beside the teacher's.

It stands below the lines of the log, in place of those about the progress, which are in log.txt all
the same. Nothing runs in the background: a thread that draws could hold a lock while the loading
processes are forked.
"""

import contextlib
import datetime
import importlib.util
import json
import logging
import os
import sys
import time
from pathlib import Path
from typing import Any

from detectron2.engine import HookBase
from detectron2.utils.events import EventStorage

from ..errors import ConfigError
from .best import BestCheckpoint
from .weight_schedule import WEIGHT
from .writers import GROUP_PREFIX, is_progress, peak_memory

EVERY = 0.25  # seconds between two drawings
WINDOW = 20  # iterations whose median is shown
Values = list[tuple[str, str]]  # what each is, and the value as text


def wants_display(progress: str) -> bool:
    """Whether ``train.progress`` of a config asks for the display here.

    Raises:
        ConfigError: it has to be there, and rich is not installed.
    """
    has_rich = importlib.util.find_spec("rich") is not None
    if progress == "rich" and not has_rich:
        raise ConfigError(
            "train.progress=rich needs the package rich, which is not installed: pip install rich,"
            " or set train.progress=plain."
        )
    is_terminal = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
    return progress == "rich" or (progress == "auto" and has_rich and is_terminal)


class ProgressHook(HookBase):
    """Draws the display; it belongs to the main process, and comes last of all hooks.

    Args:
        output_dir: of the run; its ``preflight.json`` says the teacher's AP, where there is one.
        best: the best weights so far; None: no metric is followed.
        console: to draw on, a Console of rich; None: the standard output.
    """

    def __init__(self, output_dir: str, best: BestCheckpoint | None, console: Any = None):
        self._folder = output_dir
        self._best = best
        self._console = console
        self._drawn = self._began = 0.0
        self._live: Any = None
        self._moved: list[logging.StreamHandler] = []

    def before_train(self) -> None:
        from rich.console import Console
        from rich.live import Live

        console = self._console or Console(force_terminal=True)
        self._live = Live(console=console, auto_refresh=False)
        before = sys.stdout
        self._live.start()
        self._began = time.monotonic()
        # The log's handlers keep the output that was there when they were made.
        for handler in _handlers():
            if handler.stream is before:
                handler.setStream(sys.stdout)
                handler.addFilter(_no_progress)
                self._moved.append(handler)

    def after_step(self) -> None:
        last = self.trainer.iter + 1 == self.trainer.max_iter
        if last or time.monotonic() - self._drawn > EVERY:
            self._draw()

    def after_train(self) -> None:
        if self._live is None:
            return
        with contextlib.suppress(OSError):  # the terminal may be lost
            self._draw()
            self._live.stop()
        for handler in self._moved:
            handler.setStream(sys.stdout)
            handler.removeFilter(_no_progress)
        self._moved, self._live = [], None

    def _draw(self) -> None:
        self._drawn = time.monotonic()
        storage = self.trainer.storage
        if "total_loss" not in storage.histories():
            return
        done = min(storage.latest()["total_loss"][1] + 1, self.trainer.max_iter)
        elapsed = time.monotonic() - self._began
        rows = [
            ("time", _times(storage, elapsed, self.trainer.max_iter - done)),
            ("loss", _losses(storage)),
            ("step", _step(storage)),
        ]
        if self._best is not None:
            scores = _scores(storage, self._best, self._folder, self.trainer.max_iter)
            rows.append((self._best.metric, scores))
        panel = _panel(self._folder, done, self.trainer.max_iter, rows)
        self._live.update(panel, refresh=True)


def _panel(title: str, done: int, length: int, rows: list[tuple[str, Values]]) -> Any:
    """A frame with a bar, and below it the named values of each row."""
    from rich.console import Group
    from rich.panel import Panel
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    bar = Table.grid(padding=(0, 2), expand=True)
    bar.add_column(ratio=1)
    bar.add_column(justify="right", no_wrap=True)
    share = f"{done:,} of {length:,} iterations, {done / length:.1%}"
    styles = {"complete_style": "blue", "finished_style": "green"}
    bar.add_row(ProgressBar(total=length, completed=done, **styles), share)
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    for name, values in rows:
        line = Text("   ").join(
            Text.assemble((value, "bold"), f" {label}")
            if label in ("left", "gone")
            else Text.assemble(f"{label} ", (value, "bold"))
            for label, value in values
        )
        table.add_row(name, line)
    return Panel(Group(bar, table), title=title, title_align="left", border_style="blue")


def _times(storage: EventStorage, elapsed: float, left: int) -> Values:
    found = [("gone", str(datetime.timedelta(seconds=int(elapsed))))]
    if "time" in storage.histories():  # not yet in the first iterations
        seconds = storage.history("time").median(1000)
        found.append(("left", str(datetime.timedelta(seconds=int(seconds * left)))))
        found.append(("an iteration", f"{storage.history('time').median(WINDOW):.3f} s"))
    waiting = storage.history("data_time").avg(WINDOW)
    return [*found, ("of it waiting for images", f"{waiting:.3f} s")]


def _losses(storage: EventStorage) -> Values:
    groups = [name for name in storage.histories() if name.startswith(GROUP_PREFIX)]
    names = {"total_loss": "total"} | {n: n.removeprefix(GROUP_PREFIX) for n in groups}
    return [(label, f"{storage.history(name).median(WINDOW):.4g}") for name, label in names.items()]


def _step(storage: EventStorage) -> Values:
    names = {"lr": "learning rate", "grad_norm": "gradient norm", WEIGHT: "distillation weight"}
    found = [
        (label, f"{storage.history(name).latest():.3g}")
        for name, label in names.items()
        if name in storage.histories()
    ]
    return [*found, ("memory", f"{peak_memory() / 1024:.1f} GiB")]


def _scores(storage: EventStorage, best: BestCheckpoint, folder: str, length: int) -> Values:
    """The metric of the last evaluation, the best so far, and the teacher's."""
    found = []
    if best.metric in storage.histories():
        value, iteration = storage.latest()[best.metric]
        found.append(("last", f"{value:.1f}"))
        found.append(("after", f"{min(iteration + 1, length):,}"))
    if best.value is not None:
        found.append(("best", f"{best.value:.1f}"))
    teacher = teacher_ap(folder) if best.metric.endswith("bbox/AP") else None
    if teacher is not None:
        found.append(("teacher", f"{teacher:.1f}"))
    return found or [("evaluation", "none yet")]


def teacher_ap(folder: str) -> float | None:
    """The teacher's AP in percent, as the preflight of a run measured it; None: not known."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        found = json.loads(Path(folder, "preflight.json").read_text(encoding="utf-8"))
        return float(found["teacher"]["AP"])
    return None


def _handlers() -> list[logging.StreamHandler]:
    """The handlers of all loggers that write to a stream and not to a file."""
    loggers = [logging.getLogger(name) for name in logging.root.manager.loggerDict]
    found = {id(h): h for logger in (logging.root, *loggers) for h in logger.handlers}
    kinds = logging.StreamHandler, logging.FileHandler
    return [h for h in found.values() if isinstance(h, kinds[0]) and not isinstance(h, kinds[1])]


def _no_progress(record: logging.LogRecord) -> bool:
    return not is_progress(record)
