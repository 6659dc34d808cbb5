"""The first batches of a loader, for trying out an evaluation."""

from collections.abc import Iterator
from itertools import islice
from typing import Any


class FirstBatches:
    """Gives at most ``count`` batches of a loader.

    Args:
        loader: an iterable with a length.
        count: of batches of each process, at least 1.
    """

    def __init__(self, loader: Any, count: int):
        self._loader = loader
        self._count = count

    def __len__(self) -> int:
        return min(len(self._loader), self._count)

    def __iter__(self) -> Iterator[list[dict]]:
        return islice(iter(self._loader), self._count)
