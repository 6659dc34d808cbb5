"""Gradient accumulation: the batch of an iteration goes through the model in parts.

The gradients of the parts add up to that of the whole batch, also where a loss is divided by a
number of the whole batch, such as its boxes: these normalisers are counted before the first part.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence

import torch
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from torch import nn

from ..errors import ConfigError
from ..parallel import BatchInParts
from .config.scaling import BATCH


def parts_of(batch: Sequence[dict], count: int) -> list[list[dict]]:
    """A process's batch in parts of the same size; each has its share of the unlabelled images,
    which come last in a batch.

    Raises:
        ConfigError: the batch cannot be divided so.
    """
    check_parts(len(batch) * comm.get_world_size(), count)
    return [list(batch[start::count]) for start in range(count)]


def check_parts(batch: int | None, count: int) -> None:
    """Check that the ``batch`` images of an iteration over all processes can be divided into
    ``count`` parts of each process; None: they are not known yet.

    Raises:
        ConfigError: they cannot.
    """
    world = comm.get_world_size()
    if batch is not None and batch % (count * world):
        each = f" of {world} processes" if world > 1 else ""
        raise ConfigError(
            f"train.accumulate={count}, but the {batch} images of an iteration cannot be divided"
            f" into {count} parts{each}: set {BATCH} to a multiple of {count * world}, or"
            " another train.accumulate."
        )


@torch.no_grad()
def count_normalisers(
    model: nn.Module,
    parts: Sequence[list[dict]],
    seed: Callable[[int], None],
    *,
    iteration: int,
) -> BatchInParts:
    """The normalisers of a batch in parts.

    A model that has a method ``count_normalisers`` asks for them in it; any other one computes its
    losses for it. Neither leaves a trace in its buffers or in the log.

    Args:
        model: without DistributedDataParallel.
        parts: of this process.
        seed: seeds the random numbers of a part, by its number.
        iteration: of the training.
    """
    batch = BatchInParts(len(parts))
    count = getattr(model, "count_normalisers", model)
    with EventStorage(iteration), _buffers_kept(model):
        for number, part in enumerate(parts):
            seed(number)
            with batch.counting(number):
                count(part)
    batch.counted()
    return batch


@contextlib.contextmanager
def _buffers_kept(model: nn.Module) -> Iterator[None]:
    """Inside, statistics of normalisations may change; afterwards they are as before."""
    buffers = list(model.buffers())
    before = [buffer.clone() for buffer in buffers]
    yield
    for buffer, value in zip(buffers, before, strict=True):
        buffer.copy_(value)
