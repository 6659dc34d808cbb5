"""The student alone: how fast it detects, and how much of that is not the network.

Pre-processing is what comes before the first layer with weights begins (pixels to the device,
normalisation, joining images), post-processing what comes after the last one has ended (boxes from
their offsets, selection or NMS, scaling to the file's size). Reading files is not part of it. The
student is never compiled here: the moments of its layers could not be seen.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle, islice
from typing import Any

import torch
from torch import nn

from .batches import Batch
from .clock import Clock, Spread
from .operations import count_detection, uncompiled
from .subject import Subject

BATCH_SIZES = (1, 8)


def measure_alone(
    subject: Subject, batch: Batch, clock: Clock, *, repeats: int, warmup: int
) -> dict[str, Any]:
    """Figures of the student in evaluation mode and in float32, as it is evaluated.

    Returns:
        ``parameters``, ``operations`` of one image, and for each batch size ``seconds``,
        ``images_per_second``, ``preprocessing`` and ``postprocessing``, fractions of the seconds.
    """
    student = subject.student
    images = [{k: v for k, v in x.items() if k != "instances"} for x in batch]
    seconds: dict[int, list[tuple[float, float, float]]] = {size: [] for size in BATCH_SIZES}
    student.eval()
    with torch.no_grad(), uncompiled():
        operations = count_detection(student, images[:1])
        ends = first_and_last(student, images[:1])
        for _ in range(warmup + repeats):
            for size, measured in seconds.items():
                given = list(islice(cycle(images), size))
                measured.append(_time(student, given, ends, clock))
    student.train()
    found: dict[str, Any] = {
        "parameters": sum(p.numel() for p in student.parameters()),
        "operations": operations,
    }
    for size, measured in seconds.items():
        whole, before, after = (Spread(values) for values in zip(*measured[warmup:], strict=True))
        found[f"batch_{size}"] = {
            "seconds": whole.figures(),
            "images_per_second": size / whole.median,
            "preprocessing": (before / whole).median,
            "postprocessing": (after / whole).median,
        }
    return found


def first_and_last(model: nn.Module, batch: Batch) -> tuple[nn.Module, nn.Module]:
    """The layers with weights of their own that a forward pass runs first and last."""
    ran: list[nn.Module] = []
    layers = [m for m in model.modules() if next(m.parameters(recurse=False), None) is not None]
    handles = [layer.register_forward_hook(lambda m, *_: ran.append(m)) for layer in layers]
    try:
        model(batch)
    finally:
        for handle in handles:
            handle.remove()
    return ran[0], ran[-1]


def _time(
    model: nn.Module, batch: Batch, ends: tuple[nn.Module, nn.Module], clock: Clock
) -> tuple[float, float, float]:
    """The seconds of the whole forward pass, before its first and after its last layer."""
    with _moments(ends, clock) as moments:
        started = clock.now()
        model(batch)
        stopped = clock.now()
    return stopped - started, moments["first"] - started, stopped - moments["last"]


@contextmanager
def _moments(ends: tuple[nn.Module, nn.Module], clock: Clock) -> Iterator[dict[str, float]]:
    """When the first layer begins for the first time, and the last one ends for the last time."""
    moments: dict[str, float] = {}

    def begins(*_: object) -> None:
        if "first" not in moments:
            moments["first"] = clock.now()

    def has_ended(*_: object) -> None:
        moments["last"] = clock.now()

    first, last = ends
    handles = [first.register_forward_pre_hook(begins), last.register_forward_hook(has_ended)]
    try:
        yield moments
    finally:
        for handle in handles:
            handle.remove()
