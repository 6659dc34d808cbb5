"""How long the steps of a run take and how much memory they need, with the teacher and without."""

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from torch import nn

from ..engine.accumulation import parts_of
from ..engine.step import StepTrainer
from ..engine.writers import peak_memory
from ..errors import ConfigError
from ..teachers import CachedEncoder, RecordedTeacher
from .still import Batch, Given, run_still

REMEMBERING = (CachedEncoder, RecordedTeacher)  # the latter the bytes of the files
TIMED = 3  # steps of a kind
ENOUGH = 15.0  # seconds after which no further step of a kind is timed


@dataclass
class StepFigures:
    """Steps on real batches.

    Attributes:
        plain: seconds of a step of the student alone; empty where no image of the batches has
            labels.
        first: seconds of a distillation step with images that the teacher meets for the first time.
        again: the same with images that it has met; empty where it remembers nothing.
        waiting: seconds that a step waits for its images.
        memory: MiB at the largest moment, of ``plain`` and ``distilled`` steps: of tensors on a
            GPU, of the whole process on a CPU, as in the log.
        fits: where what goes through the model at once was too large for the memory, how many
            images were not; 0: not even one fits. None: there is room.
        images: of this process, that go through the model at once.
    """

    plain: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    again: list[float] = field(default_factory=list)
    waiting: list[float] = field(default_factory=list)
    memory: dict[str, float] = field(default_factory=dict)
    fits: int | None = None
    images: int = 0

    def medians(self) -> dict[str, float]:
        """The median of each kind that was timed."""
        kinds = {name: getattr(self, name) for name in ("plain", "first", "again", "waiting")}
        return {name: statistics.median(values) for name, values in kinds.items() if values}


def remembers(teacher: object) -> bool:
    """Whether a teacher is quicker with an image that it has met."""
    modules = teacher.modules() if isinstance(teacher, nn.Module) else ()
    return any(isinstance(module, REMEMBERING) for module in modules)


def time_plain(
    figures: StepFigures,
    make: Callable[[], tuple[StepTrainer, Given]],
    batches: list[Batch],
    accumulate: int,
) -> None:
    """Time steps of the student alone, after one that does not count; see :class:`StepFigures`."""
    try:
        run = _fitting(figures, make, batches[0], "plain", accumulate)
    except ConfigError:  # no image has labels, and the points alone will teach
        return
    if run is not None:
        for i, batch in _until_enough(batches):
            figures.plain.append(run(batch, i))


def time_distilled(
    figures: StepFigures,
    make: Callable[[], tuple[StepTrainer, Given]],
    batches: list[Batch],
    accumulate: int,
    *,
    twice: bool,
) -> None:
    """Time distillation steps, after one that does not count.

    Args:
        figures: are added to.
        make: makes what runs the steps.
        batches: the first is the one that does not count.
        accumulate: in how many parts a batch goes through the model.
        twice: whether each is run once more, for a teacher that remembers images.
    """
    run = _fitting(figures, make, batches[0], "distilled", accumulate)
    if run is None:
        return
    for i, batch in _until_enough(batches):
        figures.first.append(run(batch, i))
        if twice:
            figures.again.append(run(batch, i))


def _until_enough(batches: list[Batch]) -> Iterator[tuple[int, Batch]]:
    """Number and batch of all but the first, and of fewer where they take long, at least one; as
    many in all processes.
    """
    started = time.perf_counter()
    for i, batch in enumerate(batches[1:], 1):
        yield i, batch
        if max(comm.all_gather(time.perf_counter() - started)) > ENOUGH:
            return


def next_batches(batches: Iterator[Batch], count: int, waiting: list[float]) -> list[Batch]:
    """The next batches, and how long each was waited for."""
    found = []
    for _ in range(count):
        started = time.perf_counter()
        found.append(next(batches))
        waiting.append(time.perf_counter() - started)
    return found


def _fitting(
    figures: StepFigures,
    make: Callable[[], tuple[StepTrainer, Given]],
    batch: Batch,
    name: str,
    accumulate: int,
) -> Callable[[Batch, int], float] | None:
    """What runs a step and returns its seconds, after a first step; None where that needs more
    memory than there is in one of the processes.
    """
    trainer, given = make()
    device = next(trainer.model.parameters()).device

    def run(batch: Batch, number: int) -> float:
        _finish(device)
        started = time.perf_counter()
        run_still(trainer, given, batch, number)
        _finish(device)
        return time.perf_counter() - started

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    part = parts_of(batch, accumulate)[0]
    size, figures.images = len(part), len(part)
    while size and not _fits(trainer, part[:size]):
        size //= 2
    size = min(comm.all_gather(size))
    if size < len(part):
        figures.fits = size
        return None
    run(batch, 0)
    figures.memory[name] = peak_memory()
    return run


def _fits(trainer: StepTrainer, batch: Batch) -> bool:
    """Whether there is memory for the losses and gradients of a batch.

    A step would not do, because all processes meet in it, and one of them may lack memory.
    """
    device, dtype = next(trainer.model.parameters()).device, trainer.amp_dtype
    try:
        with torch.autocast(device.type, dtype, dtype is not None), EventStorage():
            losses = trainer.model(batch)
        total = sum(loss for loss in losses.values() if loss.requires_grad)
        if isinstance(total, torch.Tensor):
            total.backward()
        return True
    except torch.OutOfMemoryError:
        return False
    finally:
        trainer.optimizer.zero_grad()
        if device.type == "cuda":
            torch.cuda.empty_cache()


def _finish(device: torch.device) -> None:
    """Wait for what was started on a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
