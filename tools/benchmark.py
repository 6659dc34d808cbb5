r"""What a training step of a config costs, and how fast its student detects.

    python tools/benchmark.py --config-file configs/distill/dino_r18_from_dino_r50.py \
        --image-size 320 --threads 1 --json dino.json

In one process and in turn it measures loading a batch, the teacher's forward pass, the student's
plain step and the distillation step, and compares the last with two yardsticks: the *floor*,
teacher forward + plain step, and the *ideal*, the floor x (operations of the distillation step /
operations of the floor). Then peak memory, the shares of a step, and the student alone.

A config of any kind can be measured. Files of weights that are not on this machine are replaced by
random weights, and images that are not by random ones; the report says so.
"""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

# PyTorch's profiler writes to the error output that it finds no GPU, and when it starts and stops.
os.environ.setdefault("KINETO_LOG_LEVEL", "99")

import kddetr  # noqa: F401  (first: it filters the warnings of libraries)

# isort: split
import torch

from benchmarking.arguments import parser
from benchmarking.measure import measure
from benchmarking.report import report
from kddetr.engine import load_config
from kddetr.errors import UsageError, exit_on_user_error


def main() -> None:
    """Parse the command line, measure, print the report and write the files."""
    flags = parser(__doc__)
    args = flags.parse_args()
    if args.image_size and len(args.image_size) > 2:
        flags.error("--image-size takes one number, for squares, or height and width")
    for option, file in (("--json", args.json), ("--profile", args.profile)):
        if file and not Path(file).absolute().parent.is_dir():
            raise UsageError(f"{option} {file}: there is no folder {Path(file).parent}, make it.")
        if file and Path(file).is_dir():
            raise UsageError(f"{option} {file} is a folder: name a file in it.")
    figures = measure(load_config(args.config_file, args.opts), args)
    print(report(figures))
    if args.json:
        Path(args.json).write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


@contextlib.contextmanager
def exit_when_out_of_memory() -> Iterator[None]:
    """:func:`kddetr.errors.exit_on_user_error`, which also counts a lack of memory."""
    with exit_on_user_error():
        try:
            yield
        except (torch.OutOfMemoryError, MemoryError) as error:
            reason = str(error).partition(". ")[0] or "There is not enough memory"
            raise UsageError(f"{reason}: use fewer or smaller images.") from error
        except RuntimeError as error:
            if "can't allocate memory" not in str(error):  # PyTorch's allocator on a CPU
                raise
            raise UsageError("There is not enough memory: use fewer or smaller images.") from error


if __name__ == "__main__":
    with exit_when_out_of_memory():
        main()
