"""How far the detections of an exported file are from those of PyTorch, and what it costs."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Run = Callable[..., Sequence[Tensor]]


@dataclass(frozen=True)
class Comparison:
    """The difference between two sets of detections.

    Attributes:
        largest: the largest difference between a detection and its counterpart in the other set:
            of scores, or of box coordinates as a fraction of the image's longer side.
        apart: how many detections differ by more than ``tolerance`` from every detection of the
            same class in the other set.
        best_apart: the highest score among those; 0 without any.
        tolerance: see ``apart``.
    """

    largest: float
    apart: int
    best_apart: float
    tolerance: float


def compare(
    found: Sequence[Tensor], expected: Sequence[Tensor], side: float, tolerance: float = 1e-4
) -> Comparison:
    """Compare detections regardless of their order, because rounding exchanges equal scores.

    Args:
        found, expected: boxes (..., D, 4) in pixels, scores (..., D) and classes (..., D) of the
            same images.
        side: the longer side of the images in pixels.
        tolerance: what counts as the same detection.
    """
    largest, apart, best_apart = 0.0, 0, 0.0
    for one, other in zip(_images(found), _images(expected), strict=True):
        for a, b in ((one, other), (other, one)):
            gaps = _gaps(a, b, side)
            far = gaps > tolerance
            largest = max([largest, *gaps.tolist()])
            apart += int(far.sum())
            best_apart = max([best_apart, *a[1][far].tolist()])
    return Comparison(largest, apart, best_apart, tolerance)


def latencies(
    runs: Mapping[str, Run], inputs: Sequence[Tensor], repetitions: int
) -> dict[str, float]:
    """The median of the seconds that a call of each function takes, by the names of ``runs``.

    The calls take turns, so that what else the machine does slows all of them alike, after two
    calls of each that are not counted: TorchScript optimises its graph in the second.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for repetition in range(-2, repetitions):
        for name, run in runs.items():
            started = time.perf_counter()
            run(*inputs)
            if repetition >= 0:
                seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def _images(detections: Sequence[Tensor]) -> list[tuple[Tensor, Tensor, Tensor]]:
    boxes, scores, classes = detections[:3]
    if scores.dim() == 1:
        return [(boxes, scores, classes)]
    return list(zip(boxes, scores, classes, strict=True))


def _gaps(one: Sequence[Tensor], other: Sequence[Tensor], side: float) -> Tensor:
    """(D,) difference between each detection and the nearest of its class in the other set."""
    (boxes, scores, classes), (others, their_scores, their_classes) = one, other
    if not len(scores) or not len(their_scores):
        return torch.full((len(scores),), torch.inf)
    gaps = (boxes[:, None] - others[None]).abs().amax(-1) / side
    gaps = gaps.maximum((scores[:, None] - their_scores[None]).abs())
    return gaps.masked_fill(classes[:, None] != their_classes[None], torch.inf).amin(1)
