"""The kinds of work that are timed, and their interleaved repetitions.

Kinds: the teacher's forward pass with its own queries, the plain step of the student, and the
distillation step. A step is that of :mod:`kddetr.engine.step`: forward pass in the precision of the
config, backward pass, clipping, optimizer.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from kddetr.engine.step import StepTrainer
from kddetr.predictions import LAST
from kddetr.preflight.steps import remembers
from kddetr.preflight.still import run_still
from kddetr.structures import EncodedDetector

from .batches import Batch
from .clock import Clock, Spread
from .subject import Subject


def teacher_forward(
    subject: Subject, batch: Batch, between: Callable[[], None] = lambda: None
) -> None:
    """Encode the images and decode the teacher's own queries, of which the last layer's predictions
    are its detections; calls ``between`` in between.
    """
    with torch.no_grad(), subject.autocast():
        teacher = EncodedDetector(subject.teacher, subject.teacher.encode(batch))
        between()
        teacher.decode(teacher.queries(), layers=LAST)


def run_step(subject: Subject, trainer: StepTrainer, batch: Batch, repetition: int = 0) -> None:
    """One training step; equal repetitions draw equal random numbers, whatever the kind."""
    run_still(trainer, subject.given, batch, repetition)


def kinds(subject: Subject) -> dict[str, Callable[[Batch], None]]:
    """What can be run with a batch, by its name."""
    found: dict[str, Callable[[Batch], None]] = {}
    if subject.teacher is not None:
        found["teacher"] = lambda batch: teacher_forward(subject, batch)
    for name, trainer in subject.trainers().items():
        found[name] = lambda batch, trainer=trainer: run_step(subject, trainer, batch)
    return found


def time_steps(subject: Subject, clock: Clock, *, repeats: int, warmup: int) -> dict[str, Spread]:
    """The seconds of each kind, interleaved: in every repetition each kind runs once, on the same
    batch, so that a slow moment of the machine meets them all.

    Returns:
        ``data_loading`` (where batches are read from files), ``teacher_encode``,
        ``teacher_decode``, ``plain_step`` and ``distillation_step``, where they exist.
    """
    seconds: dict[str, list[float]] = defaultdict(list)
    for repetition in range(warmup + repeats):
        with _timed(seconds["data_loading"], clock):
            batch = subject.source.next()
        fill_cache(subject, batch)
        if subject.teacher is not None:
            _time_teacher(subject, batch, clock, seconds)
        for name, trainer in subject.trainers().items():
            with _timed(seconds[name], clock):
                run_step(subject, trainer, batch, repetition)
    if not subject.source.loads:
        del seconds["data_loading"]
    return {name: Spread(values[warmup:]) for name, values in seconds.items()}


def fill_cache(subject: Subject, batch: Batch) -> None:
    """Let a teacher that keeps what it knows about an image meet the images and the points that
    repeat first, as in every epoch but the first.
    """
    if subject.distiller and remembers(subject.teacher):
        teacher_forward(subject, batch)
        with torch.no_grad(), subject.autocast():
            subject.distiller.ask_teacher(batch, subject.student.encode(batch))


def _time_teacher(
    subject: Subject, batch: Batch, clock: Clock, seconds: dict[str, list[float]]
) -> None:
    moments = [clock.now()]
    teacher_forward(subject, batch, between=lambda: moments.append(clock.now()))
    moments.append(clock.now())
    seconds["teacher_encode"].append(moments[1] - moments[0])
    seconds["teacher_decode"].append(moments[2] - moments[1])


@contextmanager
def _timed(seconds: list[float], clock: Clock) -> Iterator[None]:
    started = clock.now()
    yield
    seconds.append(clock.now() - started)


def yardsticks(
    seconds: dict[str, Spread], operations: dict[str, int]
) -> tuple[dict[str, Spread], dict[str, Spread]]:
    """Further seconds, and ratios of a distillation step, each within one repetition.

    The *floor* is the teacher's forward pass with its own queries and the student's plain step. The
    *ideal* is the floor times (counted operations of the distillation step / those of the floor):
    what the step would take if its further operations ran as fast as those of the floor.

    Args:
        seconds: of :func:`time_steps`.
        operations: of :func:`.operations.count_operations`; empty: there is no ideal.

    Returns:
        ``teacher``, ``floor``, ``above_floor`` (what the step takes beyond it), ``points`` (what it
        takes beyond the plain step and the teacher's encoding) and ``ideal``; and
        ``step_over_plain``, ``step_over_floor`` and ``step_over_ideal``, where they exist.
    """
    if "distillation_step" not in seconds:
        return {}, {}
    step, plain = seconds["distillation_step"], seconds["plain_step"]
    teacher = seconds["teacher_encode"] + seconds["teacher_decode"]
    floor = teacher + plain
    times = {"teacher": teacher, "floor": floor, "above_floor": step - floor}
    times["points"] = step - plain - seconds["teacher_encode"]
    ratios = {"step_over_plain": step / plain, "step_over_floor": step / floor}
    if operations:
        of_floor = operations["teacher"] + operations["plain_step"]
        times["ideal"] = floor * (operations["distillation_step"] / of_floor)
        ratios["step_over_ideal"] = step / times["ideal"]
    return times, ratios
