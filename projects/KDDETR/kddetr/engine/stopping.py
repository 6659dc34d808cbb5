"""Stopping a run early: a signal or ``train.time_limit`` ends it after the current step, saved.

SIGTERM, SIGUSR1, SIGUSR2 and SIGXCPU are what schedulers of clusters send before they end a job,
SIGINT is Ctrl-C, SIGHUP a lost terminal, and the time limit is a SIGALRM that the process sends
itself. Each is noted, and the :class:`~.trainer.Trainer` stops between two steps, with a
checkpoint. Where there is no step to wait for (start-up, evaluation), :class:`Stopped` is raised at
once.
"""

import contextlib
import math
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from types import FrameType

SIGNALS = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGXCPU,
    signal.SIGHUP,
    signal.SIGALRM,
)
# A terminal sends Ctrl-C to every process of a job, and a launcher passes it on: twice in a second
# is once.
_ONCE = 1.0
_STARTED = time.monotonic()


class Stopped(BaseException):
    """A run was asked to stop. Like KeyboardInterrupt it is no Exception, because it is no error.

    Args:
        number: of the signal.
        between_steps: whether the state of the run is that after a whole step, so that it can be
            saved.
        agreed: whether all processes stop here.
        rest: the end of the message: what was saved, and what to do.
    """

    def __init__(
        self, number: int, *, between_steps: bool = False, agreed: bool = False, rest: str = ""
    ) -> None:
        super().__init__(number)
        self.number = number
        self.between_steps = between_steps
        self.agreed = agreed
        self.rest = rest or "while no iteration was running: nothing is lost."

    def __str__(self) -> str:
        return f"stopped by {_name(self.number)} {self.rest}"

    @property
    def exit_code(self) -> int:
        """128 + the signal's number, as shells have it; 0 after the time limit, which was asked
        for.
        """
        return 0 if self.number == signal.SIGALRM else 128 + self.number


class _Request:
    """What this process was asked; signals belong to the process, so there is only one."""

    number = 0
    when = 0.0
    waits = False  # whether there is a step to wait for
    speaks = True  # one process of a machine speaks for all


_request = _Request()


@contextlib.contextmanager
def listening(*, speaks: bool = True) -> Iterator[None]:
    """Inside, this process catches the signals; ``speaks``: whether it tells the user so.

    Only a main thread can do that; in another one, nothing is changed.
    """
    _request.number, _request.waits, _request.speaks = 0, False, speaks
    before = {}
    hook = sys.unraisablehook
    # A signal, or a loading process that it has ended, can be met in a destructor, which cannot
    # raise: Python prints the traceback and goes on.
    sys.unraisablehook = lambda error: None if _request.number else hook(error)
    for number in SIGNALS if _in_main_thread() else ():
        # A program that was started with nohup outlives its terminal.
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            before[number] = signal.signal(number, _note)
    try:
        yield
    finally:
        if before:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)
        sys.unraisablehook = hook
        _request.number = 0


def limit_time(seconds: float | None) -> None:
    """Ask the process to stop so many seconds after its start; None: never."""
    if seconds is not None and math.isfinite(seconds) and _in_main_thread():
        left = seconds - (time.monotonic() - _STARTED)
        signal.setitimer(signal.ITIMER_REAL, max(left, 1e-3))


def requested() -> int:
    """The number of the signal that asked this process to stop; 0: none."""
    return _request.number


@contextlib.contextmanager
def after_step() -> Iterator[None]:
    """Inside, a signal is only noted, and the second Ctrl-C raises :class:`Stopped`."""
    before, _request.waits = _request.waits, True
    try:
        yield
    finally:
        _request.waits = before


@contextlib.contextmanager
def at_once() -> Iterator[None]:
    """Between two steps of a run: inside, a signal raises :class:`Stopped`.

    An error of the communication counts as one where this process was asked to stop, because the
    others were asked as well and may be gone.
    """
    before, _request.waits = _request.waits, False
    try:
        if _request.number:
            raise Stopped(_request.number)
        yield
    except Stopped as stopped:
        stopped.between_steps = True
        raise
    except BrokenPipeError as error:  # what reads the output, such as tee, has ended
        raise Stopped(signal.SIGPIPE, between_steps=True) from error
    except RuntimeError as error:
        if not _request.number:
            raise
        raise Stopped(_request.number, between_steps=True) from error
    finally:
        _request.waits = before


@contextlib.contextmanager
def exit_when_stopped() -> Iterator[None]:
    """Ends a program that was stopped with one sentence and the signal's exit code."""
    try:
        yield
    except Stopped as stopped:
        with contextlib.suppress(OSError):  # the terminal may be lost
            if _request.speaks:
                print(stopped, file=sys.stderr, flush=True)
        error: BaseException | None = stopped
        while error is not None:  # ends loading processes here, where their errors are not printed
            traceback.clear_frames(error.__traceback__)
            error = error.__context__
        raise SystemExit(stopped.exit_code) from None


def _note(number: int, _: FrameType | None) -> None:
    if _request.number:
        if number == signal.SIGINT and time.monotonic() - _request.when > _ONCE:
            raise Stopped(_request.number)
        return
    _request.number, _request.when = number, time.monotonic()
    if not _request.waits:
        raise Stopped(number)
    if _request.speaks:
        # Not print: the signal may have come in the middle of one.
        with contextlib.suppress(OSError):
            os.write(2, f"{_name(number)}: saves and stops after this iteration.\n".encode())


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _name(number: int) -> str:
    if number == signal.SIGALRM:
        return "train.time_limit"
    name = signal.Signals(number).name
    return f"Ctrl-C ({name})" if number == signal.SIGINT else name
