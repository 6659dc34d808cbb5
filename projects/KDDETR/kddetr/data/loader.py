"""The training loader, whose batch number i depends on the seed and on i alone.

A run can therefore be stopped and resumed at any iteration. Detectron2's own loader starts again
from its first permutation on every resume, so a job that is interrupted often trains mostly on the
first images of that permutation. In release 0.6, ``num_workers`` also changes its batches.
"""

import contextlib
import logging
import os
import random
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from detectron2.data import DatasetFromList
from detectron2.data.build import trivial_batch_collator
from detectron2.utils import comm
from torch.utils.data import DataLoader, Dataset

from ..errors import DatasetError
from ..ranges import whole

_log = logging.getLogger(__name__)

LABELED, UNLABELED = 0, 1  # numbers of the streams, which are part of their seeds


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
        mapper: turns a dict into a sample. Where it returns None, the next image is taken instead.
        total_batch_size: images of one iteration over all processes, unlabelled ones included.
        num_workers: loading processes of each training process; any number gives the same batches.
        seed: of the order and the augmentations; None or a negative number draws a random seed that
            all processes share.
        unlabeled: dataset dicts of images whose labels, if any, are not used.
        unlabeled_mapper: their mapper, such as ``DetectionMapper(labeled=False, ...)``.
        unlabeled_per_batch: how many images of ``total_batch_size`` come from ``unlabeled``.

    Raises:
        DatasetError: a data set is empty or smaller than its share of a batch.
        ValueError: a batch size is out of range, or cannot be divided by the number of processes.
    """
    whole(0, num_workers=num_workers)
    world_size = comm.get_world_size()
    _check_sizes(total_batch_size, unlabeled_per_batch, world_size)
    if seed is None or seed < 0:
        seed = comm.shared_random_seed()
    labeled_per_batch = total_batch_size - unlabeled_per_batch
    streams = [_stream(LABELED, dataset, mapper, labeled_per_batch, seed)]
    if unlabeled_per_batch:
        if unlabeled is None or unlabeled_mapper is None:
            raise ValueError(
                f"unlabeled_per_batch is {unlabeled_per_batch}: give the loader `unlabeled` images "
                "and their `unlabeled_mapper`, or set it to 0."
            )
        streams.append(_stream(UNLABELED, unlabeled, unlabeled_mapper, unlabeled_per_batch, seed))
    elif unlabeled:  # no warning, because the bundled experiments name them all
        _log.info(
            "None of the %d unlabelled images is used: set dataloader.train.unlabeled_per_batch to "
            "how many of the %d images of a batch are taken from them.",
            len(unlabeled),
            total_batch_size,
        )
    return TrainLoader(
        streams=streams, rank=comm.get_rank(), world_size=world_size, num_workers=num_workers
    )


@dataclass(frozen=True)
class Stream:
    """An endless sequence of samples: every epoch is a new permutation of the data set.

    Attributes:
        number: tells apart the streams of one seed.
        per_batch: samples that one iteration takes from the stream, over all processes.
    """

    number: int
    records: Sequence[dict]
    mapper: Callable[[dict], dict | None]
    per_batch: int
    seed: int

    def sample(self, position: int) -> dict:
        """Load the sample at ``position`` (0, 1, ...), which is the same at every call.

        The global random generators are left as they were.

        Raises:
            DatasetError: the mapper returns None for every image.
        """
        size = len(self.records)
        epoch, offset = divmod(position, size)
        index = int(_permutation(self.seed, self.number, epoch, size)[offset])
        with seeded(self.seed, self.number, position):
            for step in range(size):
                mapped = self.mapper(self.records[(index + step) % size])
                if mapped is not None:
                    return mapped
        raise DatasetError(
            f"The mapper returned None for all {size} images of the data set: correct the mapper."
        )

    def positions(self, iteration: int, rank: int, world_size: int) -> range:
        """The positions that process ``rank`` loads for ``iteration``."""
        share = self.per_batch // world_size
        start = iteration * self.per_batch + rank * share
        return range(start, start + share)


class TrainLoader:
    """An endless iterable over the batches of one process, which are lists of samples.

    The labelled images of a batch come before the unlabelled ones.

    Attributes:
        total_batch_size: images of one iteration over all processes.
    """

    def __init__(self, *, streams: list[Stream], rank: int, world_size: int, num_workers: int):
        self.streams = streams
        self.rank = rank
        self.world_size = world_size
        self.num_workers = num_workers
        self.total_batch_size = sum(stream.per_batch for stream in streams)
        self._start_iteration = 0
        self._started = False

    @property
    def start_iteration(self) -> int:
        """The iteration of the first batch. It can be set until the first batch is loaded."""
        return self._start_iteration

    @start_iteration.setter
    def start_iteration(self, iteration: int) -> None:
        if self._started:
            raise RuntimeError(
                "The loader has already started: set start_iteration before the first batch."
            )
        if iteration < 0:
            raise ValueError(f"start_iteration must not be negative, but is {iteration}.")
        self._start_iteration = int(iteration)

    def __iter__(self) -> Iterator[list[dict]]:
        """Yield batches without end. Workers start when the first batch is requested."""
        self._started = True
        loader = DataLoader(
            _Samples(self.streams),
            batch_sampler=self._places(self._start_iteration),
            num_workers=self.num_workers,
            collate_fn=trivial_batch_collator,
            worker_init_fn=_leave_signals_to_the_job,
            # Without this, DataLoader would draw from torch's global generator, which the model
            # uses too.
            generator=torch.Generator(),
        )
        with _sigterm_blocked():
            batches = iter(loader)
        yield from batches

    def _places(self, iteration: int) -> Iterator[list[tuple[int, int]]]:
        """The (stream, position) pairs of this process's batches, from ``iteration`` on."""
        while True:
            yield [
                (number, position)
                for number, stream in enumerate(self.streams)
                for position in stream.positions(iteration, self.rank, self.world_size)
            ]
            iteration += 1


class _Samples(Dataset):
    """The samples of several streams, by (stream, position)."""

    def __init__(self, streams: list[Stream]):
        self.streams = streams

    def __getitem__(self, place: tuple[int, int]) -> dict:
        stream, position = place
        return self.streams[stream].sample(position)


@contextlib.contextmanager
def _sigterm_blocked() -> Iterator[None]:
    """Worker processes that are started inside begin with SIGTERM blocked in all of their threads,
    those that libraries start in them included; :func:`_leave_signals_to_the_job` waits for it.
    """
    if not hasattr(signal, "sigwaitinfo"):  # on macOS
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _leave_signals_to_the_job(_: int) -> None:
    """Schedulers and terminals send a signal to every process of a job. A worker has to outlive it,
    so that the process that it loads for can finish its step and save. That process ends it then,
    also by SIGTERM, so this signal is ignored from others only.
    """
    for name in ("SIGINT", "SIGUSR1", "SIGUSR2", "SIGXCPU", "SIGHUP"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):
        threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)


@contextlib.contextmanager
def seeded(*key: int) -> Iterator[None]:
    """Seed Python, numpy and torch (CPU) inside the block, and restore their states after it."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    words = np.random.SeedSequence(key).generate_state(4)
    random.seed(int(words[0]))
    np.random.seed(words[1:3])
    # torch.manual_seed would also reseed the GPUs, whose states are not restored here.
    torch.default_generator.manual_seed(int(words[3]))
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


def _stream(
    number: int, records: Sequence[dict], mapper: Callable, per_batch: int, seed: int
) -> Stream:
    kind, size = ("unlabelled" if number else "training"), len(records)
    if size == 0:
        advice = "name a file that lists images"
        if number:
            advice += " or a folder of images, or set dataloader.train.unlabeled_per_batch=0"
        raise DatasetError(f"The {kind} data set is empty: {advice}.")
    if per_batch > size:
        raise DatasetError(
            f"A batch takes {per_batch} {kind} images, but the data set has only {size}: lower "
            f"dataloader.train.{'unlabeled_per_batch' if number else 'total_batch_size'}."
        )
    # DatasetFromList serialises the records: workers share their memory, and a mapper gets a copy
    # that it may change.
    return Stream(number, DatasetFromList(list(records)), mapper, per_batch, seed)


def _check_sizes(total: int, unlabeled: int, world_size: int) -> None:
    if total < 1 or not 0 <= unlabeled < total:
        raise ValueError(
            f"total_batch_size ({total}) must be positive and larger than unlabeled_per_batch "
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
