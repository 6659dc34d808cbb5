"""The training stream, by position: batch i is a pure function of (seed, i), so a run can be
stopped and resumed anywhere.

Detectron2's own loader starts its shuffle again on every resume, so that a preempted job trains on
the head of one permutation for ever, and in release 0.6 it deals samples out by worker, so that
``num_workers`` changes the batches. Here a sample is named by its position in an endless stream;
who loads it, where and when, changes nothing.
"""

import contextlib
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from detectron2.data import DatasetFromList
from detectron2.utils import comm
from torch.utils.data import DataLoader, Dataset

from ..errors import DatasetError

LABELED, UNLABELED = 0, 1  # the number of a stream is part of its seeds


def build_train_loader(
    *,
    dataset: Sequence[dict],
    mapper: Callable[[dict], dict | None],
    total_batch_size: int,
    num_workers: int = 0,
    seed: int | None = None,
    unlabeled: Sequence[dict] | None = None,
    unlabeled_mapper: Callable[[dict], dict | None] | None = None,
    unlabeled_per_batch: int = 0,
) -> "TrainLoader":
    """Build the endless training loader of this process.

    Args:
        dataset: dataset dicts of the labelled images.
        mapper: turns a dict into a sample; None makes the loader take the next image instead.
        total_batch_size: images of one iteration over all processes, unlabelled ones included.
        num_workers: loading processes of each training process; any number gives the same batches.
        seed: fixes order and augmentation; None or negative draws one that all processes share.
        unlabeled: dataset dicts of images whose labels, if any, are not used.
        unlabeled_mapper: their mapper, e.g. ``DetectionMapper(labeled=False, ...)``.
        unlabeled_per_batch: how many images of ``total_batch_size`` come from ``unlabeled``.

    Raises:
        DatasetError: a data set is empty or smaller than its share of a batch.
        ValueError: the batch cannot be divided.
    """
    world_size = comm.get_world_size()
    labeled_per_batch = total_batch_size - unlabeled_per_batch
    _check_sizes(total_batch_size, unlabeled_per_batch, world_size)
    if seed is None or seed < 0:
        seed = comm.shared_random_seed()
    streams = [_stream("training", LABELED, dataset, mapper, labeled_per_batch, seed)]
    if unlabeled_per_batch:
        if unlabeled is None or unlabeled_mapper is None:
            raise ValueError(
                f"unlabeled_per_batch is {unlabeled_per_batch}: give the loader `unlabeled` images "
                "and their `unlabeled_mapper`, or set it to 0."
            )
        args = (unlabeled, unlabeled_mapper, unlabeled_per_batch, seed)
        streams.append(_stream("unlabelled", UNLABELED, *args))
    return TrainLoader(
        streams=streams, rank=comm.get_rank(), world_size=world_size, num_workers=num_workers
    )


@dataclass(frozen=True)
class Stream:
    """An endless sequence of samples: epoch after epoch, each a new permutation of the data set.

    ``number`` tells streams of one seed apart; ``per_batch`` is how many samples an iteration takes
    over all processes.
    """

    number: int
    records: Sequence[dict]
    mapper: Callable[[dict], dict | None]
    per_batch: int
    seed: int

    def index(self, position: int) -> int:
        """Return which image stands at ``position`` (0, 1, ...) of the stream."""
        epoch, offset = divmod(position, len(self.records))
        return int(_permutation(self.seed, self.number, epoch, len(self.records))[offset])

    def sample(self, position: int) -> dict:
        """Load the sample at ``position``; the same every time, and without a trace in the global
        generators.

        Raises:
            ValueError: the mapper rejects every image.
        """
        index, size = self.index(position), len(self.records)
        with seeded(self.seed, self.number, position):
            for step in range(size):
                mapped = self.mapper(self.records[(index + step) % size])
                if mapped is not None:
                    return mapped
        raise ValueError(f"The mapper rejected every one of the {size} images of the data set.")

    def positions(self, iteration: int, rank: int, world_size: int) -> range:
        """Return the positions that process ``rank`` loads for ``iteration``."""
        share = self.per_batch // world_size
        start = iteration * self.per_batch + rank * share
        return range(start, start + share)


class TrainLoader:
    """An endless iterable over the batches (lists of samples) of one process, labelled images
    first.

    Attributes:
        total_batch_size: images of one iteration over all processes.
        dataset_size: number of labelled images.
        unlabeled_size: number of unlabelled images, 0 if none are used.
    """

    def __init__(self, *, streams: list[Stream], rank: int, world_size: int, num_workers: int):
        self.streams = streams
        self.rank = rank
        self.world_size = world_size
        self.num_workers = num_workers
        self.total_batch_size = sum(stream.per_batch for stream in streams)
        self.dataset_size = len(streams[0].records)
        self.unlabeled_size = sum(len(stream.records) for stream in streams[1:])
        self._start_iteration = 0
        self._started = False

    @property
    def start_iteration(self) -> int:
        """The iteration of the first batch; to be set before that batch is asked for."""
        return self._start_iteration

    @start_iteration.setter
    def start_iteration(self, iteration: int) -> None:
        if self._started:
            raise RuntimeError("The loader has begun: set start_iteration before the first batch.")
        if iteration < 0:
            raise ValueError(f"start_iteration must not be negative, and is {iteration}.")
        self._start_iteration = int(iteration)

    def __iter__(self) -> Iterator[list[dict]]:
        """Yield batches for ever; nothing starts before the first is asked for."""
        self._started = True
        loader = DataLoader(
            _Samples(self.streams),
            batch_sampler=_Plan(self.streams, self.rank, self.world_size, self._start_iteration),
            num_workers=self.num_workers,
            collate_fn=_as_list,
            # Without a generator of its own, DataLoader draws from torch's global one, i.e. from
            # the model's.
            generator=torch.Generator(),
        )
        yield from loader


class _Samples(Dataset):
    """Samples by (stream, position)."""

    def __init__(self, streams: list[Stream]):
        self.streams = streams

    def __getitem__(self, place: tuple[int, int]) -> dict:
        stream, position = place
        return self.streams[stream].sample(position)


class _Plan:
    """The (stream, position) pairs of each batch of one process, from ``start`` on, without end."""

    def __init__(self, streams: list[Stream], rank: int, world_size: int, start: int):
        self.streams, self.rank, self.world_size, self.start = streams, rank, world_size, start

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        iteration = self.start
        while True:
            yield [
                (number, position)
                for number, stream in enumerate(self.streams)
                for position in stream.positions(iteration, self.rank, self.world_size)
            ]
            iteration += 1


@contextlib.contextmanager
def seeded(*key: int) -> Iterator[None]:
    """Seed python, numpy and torch (CPU) inside the block; their states are put back after it."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    words = np.random.SeedSequence(key).generate_state(4)
    random.seed(int(words[0]))
    np.random.seed(words[1:3])
    # torch.manual_seed would also reseed the GPUs, whose states are not put back here.
    torch.default_generator.manual_seed(int(words[3]))
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


def _stream(
    kind: str, number: int, records: Sequence[dict], mapper: Callable, per_batch: int, seed: int
) -> Stream:
    size = len(records)
    if size == 0:
        raise DatasetError(f"The {kind} data set is empty: there is no image to train on.")
    if per_batch > size:
        raise DatasetError(
            f"A batch takes {per_batch} {kind} images, but the data set has only {size}: lower "
            f"dataloader.train.{'unlabeled_per_batch' if number else 'total_batch_size'}."
        )
    # Serialised: loading processes then share the memory, and a mapper may change its own copy.
    return Stream(number, DatasetFromList(list(records)), mapper, per_batch, seed)


def _check_sizes(total: int, unlabeled: int, world_size: int) -> None:
    if total < 1 or not 0 <= unlabeled < total:
        raise ValueError(
            f"total_batch_size ({total}) must be positive and more than unlabeled_per_batch "
            f"({unlabeled}), which must not be negative: every batch needs a labelled image."
        )
    for name, size in (("total_batch_size", total), ("unlabeled_per_batch", unlabeled)):
        if size % world_size:
            raise ValueError(
                f"{name} ({size}) cannot be divided among {world_size} processes: choose a "
                f"multiple of {world_size}."
            )


@lru_cache(maxsize=8)
def _permutation(seed: int, number: int, epoch: int, size: int) -> np.ndarray:
    return np.random.default_rng([seed, number, epoch]).permutation(size)


def _as_list(batch: list[dict]) -> list[dict]:
    return batch
