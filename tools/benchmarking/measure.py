"""All measurements of one config, as one tree of plain values that JSON can hold."""

import contextlib
from typing import Any

import torch
from omegaconf import DictConfig
from torch.profiler import ProfilerActivity, profile

from kddetr.detectors.detr.sampling import sampled_by
from kddetr.engine.precision import dtype_name

from .alone import measure_alone
from .arguments import PARTS
from .batches import Batch
from .clock import Clock, Spread
from .environment import environment
from .memory import measure_memory, memory_ratio
from .operations import count_operations
from .sampling import measure_sampling
from .shares import time_shares
from .steps import kinds, time_steps, yardsticks
from .subject import Subject, build_subject

STEPS = ("plain_step", "distillation_step")


def measure(cfg: DictConfig, args: Any) -> dict[str, Any]:
    """Build the models of a config and measure what the command line asks for.

    Args:
        cfg: a config as :func:`kddetr.engine.load_config` returns it; it is changed in place.
        args: the command line, see :mod:`.arguments`.

    Returns:
        the figures by name, see docs/performance.md; what does not exist is left out.
    """
    if args.threads:
        torch.set_num_threads(args.threads)
    sampling = sampled_by(args.sampling) if args.sampling else contextlib.nullcontext()
    with sampling:
        subject = build_subject(cfg, args)
        figures = _described(subject, args)
        _measure_parts(subject, args, figures)
        if args.profile:
            write_trace(subject, subject.source.next(), args.profile)
    return figures


def _described(subject: Subject, args: Any) -> dict[str, Any]:
    clock = Clock(subject.device)
    return {
        "config": args.config_file,
        "overrides": list(args.opts),
        "environment": environment(subject.device),
        "precision": dtype_name(subject.amp),
        "clock": clock.name,
        "batch_size": args.batch_size,
        "images": subject.source.name,
        "repeats": args.repeats,
        "sampling": args.sampling or "the fastest that is there",
        "student": type(subject.student).__name__,
        "teacher": None if subject.teacher is None else type(subject.teacher).__name__,
        "notes": subject.notes,
    }


def _measure_parts(subject: Subject, args: Any, figures: dict[str, Any]) -> None:
    """Add the figures of the parts that are asked for."""
    clock, parts = Clock(subject.device), args.only or PARTS
    often = {"repeats": args.repeats, "warmup": args.warmup}
    batch = subject.source.next()
    operations: dict[str, int] = {}
    if "operations" in parts:
        operations = count_operations(subject, batch)
        figures["operations"] = operations
    if "steps" in parts:
        figures |= timed_figures(time_steps(subject, clock, **often), operations, len(batch))
    if "shares" in parts:
        warmup = 0 if "steps" in parts else args.warmup  # the same steps have run before
        figures["shares"] = time_shares(subject, clock, repeats=args.repeats, warmup=warmup)
    if "memory" in parts:
        memory = measure_memory(subject, batch)
        figures["memory"] = memory
        figures.setdefault("ratios", {}).update(memory_ratio(memory))
    if "sampling" in parts:
        figures |= measure_sampling(subject, batch, clock, **often)
    if "student" in parts:
        figures["student_alone"] = measure_alone(subject, batch, clock, **often)


def timed_figures(
    seconds: dict[str, Spread], operations: dict[str, int], batch_size: int
) -> dict[str, Any]:
    """``seconds`` of each kind and yardstick, ``ratios`` and ``images_per_second``."""
    times, ratios = yardsticks(seconds, operations)
    rates = {name: batch_size / seconds[name].median for name in STEPS if name in seconds}
    return {
        "seconds": {name: spread.figures() for name, spread in (seconds | times).items()},
        "ratios": {name: spread.figures() for name, spread in ratios.items()},
        "images_per_second": rates,
    }


def write_trace(subject: Subject, batch: Batch, file: str) -> None:
    """Write a trace of one distillation step, or of one plain step where there is no other."""
    step = list(kinds(subject).values())[-1]
    step(batch)  # what happens only once is not part of the trace
    activities = [ProfilerActivity.CPU]
    if subject.device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as profiler:
        step(batch)
    profiler.export_chrome_trace(file)
