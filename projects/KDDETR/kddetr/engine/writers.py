"""The writers of a run: the log line, with losses summed by group, JSON, and TensorBoard events.

A detector with six decoder layers has twenty loss terms and a distiller forty. JSON and TensorBoard
have them all; the log line has the sums of groups.
"""

import contextlib
import datetime
import importlib.util
import logging
import os
import resource
import sys
from collections.abc import Callable, Mapping

import torch
from detectron2.utils.events import (
    EventStorage,
    EventWriter,
    JSONWriter,
    TensorboardXWriter,
    get_event_storage,
)

GROUP_PREFIX = "losses/"
_PROGRESS = "is_progress"  # attribute of the log records about the progress
_log = logging.getLogger(__name__)


def is_progress(record: logging.LogRecord) -> bool:
    """Whether a record of the log is a line about the progress."""
    return getattr(record, _PROGRESS, False)


def loss_group(name: str) -> str:
    """The group of a loss: the part of its name before the "/"; without one, "detection"."""
    group, slash, _ = name.partition("/")
    return group if slash else "detection"


def peak_memory() -> float:
    """The largest memory use so far, in MiB: of tensors on the GPU, or of the process on a CPU."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / 2**20
    unit = 1 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


class LossPrinter(EventWriter):
    """Logs one line about the progress of a run.

    Args:
        max_iter: length of the run, for the remaining time.
        window: number of last iterations whose median is shown.
    """

    def __init__(self, max_iter: int, window: int = 20):
        self._max_iter = max_iter
        self._window = window

    def write(self) -> None:
        """Log the current iteration, unless it had no step: after the last one, and after an
        error.
        """
        storage = get_event_storage()
        if storage.latest().get("total_loss", (0, -1))[1] != storage.iter:
            return
        memory = peak_memory()
        storage.put_scalar("max_mem_mb", memory, smoothing_hint=False)
        parts = [
            f"iter: {storage.iter + 1}/{self._max_iter}",
            self._losses(storage),
            self._times(storage),
        ]
        for name in ("lr", "grad_norm"):
            if name in storage.histories():
                parts.append(f"{name}: {storage.history(name).latest():.4g}")
        _log.info("  ".join([*parts, f"max_mem: {memory:.0f}M"]), extra={_PROGRESS: True})

    def _losses(self, storage: EventStorage) -> str:
        groups = [name for name in storage.histories() if name.startswith(GROUP_PREFIX)]
        shown = ["total_loss", *(groups if len(groups) > 1 else [])]
        return "  ".join(
            f"{name.removeprefix(GROUP_PREFIX)}: {storage.history(name).median(self._window):.4g}"
            for name in shown
        )

    def _times(self, storage: EventStorage) -> str:
        parts = []
        if "time" in storage.histories():  # not yet in the first iterations
            seconds = storage.history("time").median(1000) * (self._max_iter - storage.iter - 1)
            storage.put_scalar("eta_seconds", seconds, smoothing_hint=False)
            parts.append(f"eta: {datetime.timedelta(seconds=int(seconds))}")
            parts.append(f"time: {storage.history('time').median(self._window):.4f}")
        parts.append(f"data_time: {storage.history('data_time').avg(self._window):.4f}")
        return "  ".join(parts)


class FileWriter(EventWriter):
    """A writer whose file may fail: a full disk costs lines of it, and not the run.

    Args:
        make: makes the writer, at its first line.
        file: what it writes, for the warning.
    """

    def __init__(self, make: Callable[[], EventWriter], file: str):
        self._make = make
        self._file = file
        self._writer: EventWriter | None = None
        self._failed = False

    def write(self) -> None:
        """Write what is new, or warn once that it cannot be written."""
        try:
            if self._writer is None:
                self._writer = self._make()
            self._writer.write()
        except OSError as error:
            if not self._failed:
                _log.warning("%s cannot be written (%s); the run goes on.", self._file, error)
            self._failed = True

    def close(self) -> None:
        """Close the file."""
        with contextlib.suppress(OSError):
            if self._writer is not None:
                self._writer.close()


def build_writers(output_dir: str, max_iter: int) -> list[EventWriter]:
    """The log line, ``metrics.json``, and TensorBoard events where tensorboard is installed."""
    os.makedirs(output_dir, exist_ok=True)
    writers: list[EventWriter] = [LossPrinter(max_iter), _metrics(output_dir)]
    if importlib.util.find_spec("tensorboard") is not None:
        writers.append(FileWriter(lambda: TensorboardXWriter(output_dir), "TensorBoard events"))
    else:
        _log.info("tensorboard is not installed, so no TensorBoard events are written.")
    return writers


def write_results(output_dir: str, results: Mapping[str, float], iteration: int) -> None:
    """Add a line with the results of an evaluation to ``metrics.json``.

    Args:
        output_dir: of the run.
        results: names and values.
        iteration: of the evaluation, counted from 0.
    """
    writer = _metrics(output_dir)
    with EventStorage(iteration) as storage:
        storage.put_scalars(**results, smoothing_hint=False)
        writer.write()
    writer.close()


def _metrics(output_dir: str) -> FileWriter:
    file = os.path.join(output_dir, "metrics.json")
    return FileWriter(lambda: JSONWriter(file), file)
