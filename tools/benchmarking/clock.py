"""A clock that waits for the GPU, and the spread of repeated measurements."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch


class Clock:
    """Seconds on a device.

    On one thread of a CPU it is the processor time of this process, which other programs on the
    machine do not lengthen. Otherwise it is the wall time, and on a GPU it is read when all that
    was started there has ended.
    """

    def __init__(self, device: torch.device) -> None:
        self.waits = device.type == "cuda"
        self.counts_processor_time = not self.waits and torch.get_num_threads() == 1

    @property
    def name(self) -> str:
        """What the seconds are, for a report."""
        return "processor time" if self.counts_processor_time else "wall time"

    def now(self) -> float:
        """Seconds since some fixed moment."""
        if self.waits:
            torch.cuda.synchronize()
        return time.process_time() if self.counts_processor_time else time.perf_counter()


@dataclass(frozen=True)
class Spread:
    """Repeated measurements of one thing, in the order in which they were made."""

    values: Sequence[float]

    @property
    def median(self) -> float:
        """The median."""
        return statistics.median(self.values)

    def __add__(self, other: "Spread") -> "Spread":
        """The sums of the measurements of each repetition."""
        return Spread([a + b for a, b in zip(self.values, other.values, strict=True)])

    def __sub__(self, other: "Spread") -> "Spread":
        """The differences within each repetition."""
        return Spread([a - b for a, b in zip(self.values, other.values, strict=True)])

    def __mul__(self, factor: float) -> "Spread":
        return Spread([factor * value for value in self.values])

    def __truediv__(self, other: "Spread") -> "Spread":
        """The ratios within each repetition: what slows the machine slows both of a pair."""
        return Spread([a / b for a, b in zip(self.values, other.values, strict=True)])

    def figures(self) -> dict[str, Any]:
        """Median, smallest, largest and all values, for JSON."""
        values = [float(f"{value:.5g}") for value in self.values]
        median = float(f"{self.median:.5g}")
        return {"median": median, "min": min(values), "max": max(values), "values": values}
