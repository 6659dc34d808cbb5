"""Numbers that all training processes agree on, and all parts of a batch that is too large to go
through the model at once.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from detectron2.utils import comm
from torch import Tensor, distributed

from .errors import UsageError

Value = TypeVar("Value")


def mean_over_processes(value: Tensor) -> Tensor:
    """The mean of a tensor over all processes, without a gradient."""
    value = value.detach().clone()
    if comm.get_world_size() > 1:
        distributed.all_reduce(value)
        value = value / comm.get_world_size()
    return value


def normaliser(
    value: Tensor, *, least: float, name: str = "", of_each_process: bool = False
) -> Tensor:
    """What the sum of a loss over the images at hand is divided by, without a gradient.

    It is the mean of ``value`` over the processes. DistributedDataParallel averages the gradients
    of the processes. So when each process divides its sum by the mean normaliser, the result is the
    sum over all images divided by the normaliser of all images.

    Where the batch of an iteration goes through the model in parts, whose losses are averaged in
    the same way, it is the normaliser of the whole batch divided by the number of parts.

    Args:
        value: a scalar of these images, such as their number of boxes.
        least: the normaliser of the whole batch is at least this number.
        name: where a model asks for the same number several times, its name; "": a number of its
            own.
        of_each_process: whether each process divides by its own sum, without the mean.

    Raises:
        UsageError: the model asks for other normalisers than when they were counted.
    """
    if _batch is not None:
        return _batch.normaliser(value, least=least, name=name, of_each_process=of_each_process)
    return (value.detach() if of_each_process else mean_over_processes(value)).clamp(min=least)


def share_of_batch() -> float:
    """The share of a process's batch that goes through the model at once: 1, or 1 / number of
    parts.
    """
    return 1.0 if _batch is None else 1.0 / _batch.parts


def computed_once(key: str, make: Callable[[], Value]) -> Value:
    """``make()``; where the normalisers of a batch in parts are counted first, what it returned
    then, for the same part.

    Args:
        key: names it; every part computes it once.
        make: takes no argument.
    """
    return make() if _batch is None else _batch.computed_once(key, make)


class BatchInParts:
    """The normalisers of a batch that goes through the model in parts, one after another.

    They are first counted, over all parts, and then used:

        batch = BatchInParts(len(parts))
        for number, part in enumerate(parts):
            with batch.counting(number):
                model.count_normalisers(part)
        batch.counted()
        for number, part in enumerate(parts):
            with batch.using(number):
                losses = model(part)

    Args:
        parts: their number.
    """

    def __init__(self, parts: int) -> None:
        self.parts = parts
        self._sums: dict[str, Tensor] = {}
        self._own: set[str] = set()  # of each process by itself
        self._asked: set[str] = set()  # in the current part
        self._unnamed = 0
        self._is_counting = False
        self._number = 0
        self._kept: dict[tuple[int, str], object] = {}

    @contextlib.contextmanager
    def counting(self, number: int) -> Iterator[None]:
        """Inside, the normalisers of part ``number`` are counted."""
        with self._in_part(number, is_counting=True):
            yield

    @contextlib.contextmanager
    def using(self, number: int) -> Iterator[None]:
        """Inside, part ``number`` gets the normalisers of the whole batch."""
        with self._in_part(number, is_counting=False):
            yield

    def counted(self) -> None:
        """Called when all parts are counted, in all processes: takes the mean over these."""
        shared = [name for name in self._sums if name not in self._own]
        if shared:
            means = mean_over_processes(torch.stack([self._sums[name] for name in shared]))
            self._sums |= dict(zip(shared, means.unbind(), strict=True))

    def normaliser(
        self, value: Tensor, *, least: float, name: str, of_each_process: bool
    ) -> Tensor:
        """See :func:`normaliser`."""
        if not name:
            self._unnamed += 1
            name = f"number {self._unnamed}"
        if self._is_counting:
            if name not in self._asked:
                value = value.detach()
                self._sums[name] = self._sums[name] + value if name in self._sums else value
            if of_each_process:
                self._own.add(name)
        elif name not in self._sums:
            raise UsageError(
                f"A loss asks for the normaliser {name!r}, which was not counted before: with"
                " train.accumulate a model has to ask for the same normalisers in every part."
            )
        self._asked.add(name)
        return (value if self._is_counting else self._sums[name]).clamp(min=least) / self.parts

    def computed_once(self, key: str, make: Callable[[], Value]) -> Value:
        """See :func:`computed_once`."""
        place = self._number, key
        if self._is_counting:
            self._kept[place] = made = make()
            return made
        return self._kept.pop(place) if place in self._kept else make()  # type: ignore[return-value]

    @contextlib.contextmanager
    def _in_part(self, number: int, *, is_counting: bool) -> Iterator[None]:
        global _batch
        self._number, self._is_counting = number, is_counting
        self._asked, self._unnamed = set(), 0
        before, _batch = _batch, self
        try:
            yield
        finally:
            _batch = before


_batch: BatchInParts | None = None  # that the model is computing a part of
