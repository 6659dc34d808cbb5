"""The command line of tools/benchmark.py."""

import argparse
from collections.abc import Callable

from kddetr.detectors.detr.sampling import IMPLEMENTATIONS

PARTS = ("steps", "shares", "operations", "memory", "sampling", "student")
BATCH_SIZE = 2  # that of the published measurements of this project


def parser(description: str | None) -> argparse.ArgumentParser:
    """The flags, and the overrides of the config as ``opts``."""
    flags = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = flags.add_argument
    add("--config-file", required=True, help="any config: a detector, or a pair")
    add("--device", default="auto", help="cpu, cuda or auto: a GPU where there is one (default)")
    size = "random images of this size, N x N or H x W; default: the images of the config's loader"
    size += " where its data set is there, else 800 1333"
    add("--image-size", type=side, nargs="+", metavar="N", help=size)
    own = "the images of the config's loader also with --image-size, to which they are resized"
    add("--own-images", action="store_true", help=own)
    add("--batch-size", type=positive, default=BATCH_SIZE, metavar="N", help="default 2")
    add("--boxes", type=at_least(0), default=10, help="objects in a random image (default 10)")
    mixed = "every second random image has three quarters of the size"
    add("--mixed-sizes", action="store_true", help=mixed)
    add("--repeats", type=positive, default=5, help="interleaved repetitions (default 5)")
    add("--warmup", type=at_least(0), default=1, help="repetitions that do not count (default 1)")
    add("--threads", type=positive, help="threads of a CPU (default: those that PyTorch takes)")
    names = ",".join(PARTS)
    add("--only", type=parts, metavar="PARTS", help=f"measure only some of {names}")
    fixed = "replace the teacher by fixed answers, so that only the student's part is measured"
    add("--fixed-teacher", action="store_true", help=fixed)
    half = "keep the teacher's large weights in bfloat16 (kddetr.teachers.HalfPrecision)"
    add("--half-teacher", action="store_true", help=half)
    sampling = "how deformable attention samples; default: the fastest that is there"
    add("--sampling", choices=sorted(IMPLEMENTATIONS), help=sampling)
    add("--json", metavar="FILE", help="also write all figures to this file")
    trace = "write a trace of one step, for chrome://tracing or ui.perfetto.dev"
    add("--profile", metavar="FILE", help=trace)
    add("opts", nargs="*", metavar="overrides", help="key=value of the config")
    return flags


def at_least(low: int) -> Callable[[str], int]:
    """The type of an argument that is a whole number of at least ``low``."""

    def parse(text: str) -> int:
        if not text.lstrip("+-").isdecimal():
            raise argparse.ArgumentTypeError(f"{text} is not a whole number")
        if int(text) < low:
            raise argparse.ArgumentTypeError(f"{text} is less than {low}")
        if int(text) >= 2**31:
            raise argparse.ArgumentTypeError(f"{text} is too large")
        return int(text)

    return parse


positive = at_least(1)
pixels = at_least(32)  # of smaller images the last features have one value, or none


def side(text: str) -> int:
    """The type of a number of ``--image-size``, after which overrides would be taken for more."""
    if "=" in text:
        raise argparse.ArgumentTypeError(f"{text} is no size: put -- before the overrides")
    return pixels(text)


def parts(text: str) -> tuple[str, ...]:
    """The type of a list of :data:`PARTS`, separated by commas."""
    found = tuple(text.split(","))
    for name in found:
        if name not in PARTS:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(PARTS)}")
    return found
