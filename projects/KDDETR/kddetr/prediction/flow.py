"""Work in the background, and batches: iterators in which reading, detecting and drawing go on at
the same time.
"""

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

In = TypeVar("In")
Out = TypeVar("Out")


def in_background(
    function: Callable[[In], Out], items: Iterable[In], *, workers: int, ahead: int
) -> Iterator[Out]:
    """The results of a function that is called in other threads, in the order of the items.

    Threads are enough, because Pillow, numpy and OpenCV let other threads run while they decode,
    resize and encode an image.

    Args:
        function: of one item.
        items: are taken as they are needed.
        workers: threads.
        ahead: the most items that are in work or waiting for the caller.
    """
    pool = ThreadPoolExecutor(workers)
    waiting: deque[Future[Out]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def batches(items: Iterable[In], most: int, size: Callable[[In], Any]) -> Iterator[list[In]]:
    """Consecutive items of one size, at most ``most`` together."""
    for _, same in itertools.groupby(items, size):
        while batch := list(itertools.islice(same, most)):
            yield batch
