"""The implementations of deformable attention's sampling, one call of the encoder each, in turn."""

from collections import defaultdict
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from kddetr.detectors.detr.sampling import (
    IMPLEMENTATIONS,
    Shapes,
    sample_by_grid_sample,
    sample_values,
    sampled_by,
)

from .batches import Batch
from .clock import Clock, Spread
from .operations import uncompiled
from .subject import Subject

Call = tuple[Tensor, Shapes, Tensor, Tensor]  # the arguments of sample_values


def measure_sampling(
    subject: Subject, batch: Batch, clock: Clock, *, repeats: int, warmup: int
) -> dict[str, Any]:
    """``sampled_layer``: ``places``, how many are sampled; ``seconds``, forward and backward, of
    each implementation that the machine has; why it lacks the ``missing`` ones.

    Empty for a student without deformable attention.
    """
    call = first_call(subject, batch)
    if call is None:
        return {}
    missing = {name: reason for name in IMPLEMENTATIONS if (reason := _reason(name, call))}
    seconds: dict[str, dict[str, list[float]]] = {
        name: defaultdict(list) for name in IMPLEMENTATIONS if name not in missing
    }
    for _ in range(warmup + repeats):
        for name, measured in seconds.items():
            for way, spent in zip(("forward", "backward"), _time(name, call, clock), strict=True):
                measured[way].append(spent)
    spreads = {
        name: {way: Spread(values[warmup:]).figures() for way, values in measured.items()}
        for name, measured in seconds.items()
    }
    places = call[2].shape[:-1].numel()
    return {"sampled_layer": {"places": places, "seconds": spreads, "missing": missing}}


def first_call(subject: Subject, batch: Batch) -> Call | None:
    """The arguments of the student's first sampling, which is that of an encoder layer, as leaves
    that get gradients; None where it samples nothing.
    """
    calls: list[Call] = []

    def watched(values: Tensor, shapes: Shapes, locations: Tensor, weights: Tensor) -> Tensor:
        calls.append((values, shapes, locations, weights))
        return sample_by_grid_sample(values, shapes, locations, weights)

    with (
        torch.no_grad(),
        subject.autocast(),
        uncompiled(),
        patch.dict(IMPLEMENTATIONS, watched=watched),
        sampled_by("watched"),
    ):
        subject.student.encode(batch)
    if not calls:
        return None
    values, shapes, locations, weights = calls[0]
    # sample_values has widened what a layer gave in the precision of the step.
    narrow = values if subject.amp is None else values.to(subject.amp)
    values, locations, weights = (x.clone().requires_grad_() for x in (narrow, locations, weights))
    return values, shapes, locations, weights


def _reason(name: str, call: Call) -> str:
    """Why an implementation does not run here; empty where it does."""
    if name == "triton" and call[0].device.type == "cpu":
        return "Triton's kernels need a GPU; its interpreter is for tests."
    try:
        with sampled_by(name):
            sample_values(*call)
    except Exception as error:  # a package that is not there, a kernel that does not compile
        return str(error)
    return ""


def _time(name: str, call: Call, clock: Clock) -> tuple[float, float]:
    """The seconds of the forward and of the backward pass."""
    with sampled_by(name):
        started = clock.now()
        out = sample_values(*call)
        done = clock.now()
    gradient = torch.ones_like(out)
    leaves = [x for x in call if isinstance(x, Tensor)]
    begun = clock.now()
    torch.autograd.grad(out, leaves, gradient)
    return done - started, clock.now() - begun
