"""What a step spends its time on: timers around the calls that a distiller and its parts make.

The parts of the forward pass are timed themselves. The backward pass runs through all parts at
once, so the part of the student's points there is the difference between the backward pass of the
distillation step and that of the plain step. Of it the distillation loss is timed itself: the
gradient reaches the predictions at the points after it. A timer waits for the GPU, which delays a
step there, so steps with timers are repetitions of their own.
"""

import contextlib
import functools
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn

from kddetr.engine.step import StepTrainer
from kddetr.structures import Predictions

from .clock import Clock
from .steps import fill_cache, run_step
from .subject import Subject

# Attributes of a detector's modules that match predictions or anchors with objects.
MATCHING = ("matcher", "label_and_sample_anchors", "label_and_sample_proposals", "label_anchors")
TRUTH = "ground truth"


class Timers:
    """The seconds spent in each part of the steps so far; a part inside of another one is not
    counted twice.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.seconds: dict[str, float] = defaultdict(float)
        self.backward_started = 0.0
        self._open: list[str] = []
        self._inside: list[float] = []  # seconds of parts inside of each open part

    def around(self, part: str, function: Callable, *, outside: str = "") -> Callable[..., Any]:
        """The function, timed; not inside of the part ``outside``, to which it belongs then."""

        @functools.wraps(function)  # the arguments of a decode are looked at
        def timed(*args: Any, **kwargs: Any) -> Any:
            if part in self._open or outside in self._open:
                return function(*args, **kwargs)
            with self.part(part):
                return function(*args, **kwargs)

        return timed

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count the time inside of the block."""
        self._open.append(name)
        self._inside.append(0.0)
        started = self.clock.now()
        yield
        spent = self.clock.now() - started
        self._open.pop()
        self.seconds[name] += spent - self._inside.pop()
        if self._inside:
            self._inside[-1] += spent


@contextlib.contextmanager
def timed_parts(subject: Subject, timers: Timers) -> Iterator[None]:
    """Inside, the timers count the parts of the subject's steps."""
    with contextlib.ExitStack() as stack:

        def patch(owner: Any, name: str, part: str, outside: str = "") -> None:
            if callable(function := getattr(owner, name, None)):
                _replace(stack, owner, name, timers.around(part, function, outside=outside))

        student = subject.student
        for module in student.modules():
            for name in MATCHING:
                patch(module, name, "matching")
        patch(student, "losses", TRUTH)
        if subject.distiller is not None:
            for name in ("decode", "convert_queries"):
                patch(student, name, "student_points_forward", TRUTH)
            for name, part in (("encode", "encode"), ("queries", "decode"), ("decode", "decode")):
                patch(subject.teacher, name, f"teacher_{part}")
            _time_loss(stack, subject.distiller, timers)
        for trainer in subject.trainers().values():
            _time_backward(stack, trainer, timers)
        yield


def _replace(stack: contextlib.ExitStack, owner: Any, name: str, value: Any) -> None:
    """Set an attribute of an object until the stack is closed."""
    own = vars(owner).get(name)
    setattr(owner, name, value)
    stack.callback(setattr, owner, name, own) if own is not None else stack.callback(
        delattr, owner, name
    )


def _time_loss(stack: contextlib.ExitStack, distiller: nn.Module, timers: Timers) -> None:
    """Time the distillation loss forward, and backward up to the predictions that it compares."""
    loss = distiller.loss
    owner, name = (loss, "forward") if isinstance(loss, nn.Module) else (distiller, "loss")
    compute = timers.around("loss", getattr(owner, name))

    def reached(gradient: Tensor) -> None:
        timers.seconds["loss_backward"] = timers.clock.now() - timers.backward_started

    def watched(student: Predictions, *others: Any) -> Any:
        for tensor in (student.logits, student.boxes):
            if tensor.requires_grad:
                tensor.register_hook(reached)
        return compute(student, *others)

    _replace(stack, owner, name, watched)


def _time_backward(stack: contextlib.ExitStack, trainer: StepTrainer, timers: Timers) -> None:
    """Time the backward pass, which lies between scaling the loss and unscaling the gradient."""
    scaler, now = trainer.grad_scaler, timers.clock.now
    scale, unscale = scaler.scale, scaler.unscale_

    def start(loss: Tensor) -> Tensor:
        scaled = scale(loss)
        timers.backward_started = now()
        return scaled

    def stop(optimizer: Any) -> None:
        timers.seconds["backward"] = now() - timers.backward_started
        unscale(optimizer)

    _replace(stack, scaler, "scale", start)
    _replace(stack, scaler, "unscale_", stop)


def time_shares(
    subject: Subject, clock: Clock, *, repeats: int, warmup: int
) -> dict[str, dict[str, float]]:
    """The seconds of each part, as fractions of the whole, by the kind of step.

    Returns:
        for ``plain_step`` the part ``matching``; for ``distillation_step`` also ``teacher_encode``,
        ``teacher_decode``, ``student_points_forward``, ``student_points_backward`` and ``loss``,
        forward and backward; ``rest`` is everything else.
    """
    found: dict[str, list[dict[str, float]]] = defaultdict(list)
    for repetition in range(warmup + repeats):
        batch = subject.source.next()
        fill_cache(subject, batch)
        for name, trainer in subject.trainers().items():
            timers = Timers(clock)
            with timed_parts(subject, timers):
                started = clock.now()
                run_step(subject, trainer, batch, repetition)
                timers.seconds["whole"] = clock.now() - started
            found[name].append(dict(timers.seconds))
    return shares_of({name: steps[warmup:] for name, steps in found.items()})


def shares_of(found: dict[str, list[dict[str, float]]]) -> dict[str, dict[str, float]]:
    """:func:`time_shares` from the seconds of each part, by the kind of step and repetition."""
    middle = {
        kind: {
            part: statistics.median(step.get(part, 0.0) for step in steps)
            for part in {part for step in steps for part in step}
        }
        for kind, steps in found.items()
    }
    shares = {}
    for kind, seconds in middle.items():
        parts = {"matching": seconds.get("matching", 0.0)}
        if kind == "distillation_step":
            for name in ("teacher_encode", "teacher_decode", "student_points_forward"):
                parts[name] = seconds.get(name, 0.0)
            of_loss = seconds.get("loss_backward", 0.0)
            added = seconds["backward"] - middle["plain_step"]["backward"]
            parts["student_points_backward"] = added - of_loss
            parts["loss"] = seconds.get("loss", 0.0) + of_loss
        of_step = {name: value / seconds["whole"] for name, value in parts.items()}
        shares[kind] = of_step | {"rest": 1 - sum(of_step.values())}
    return shares
