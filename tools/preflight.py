r"""Measure a distillation before its first hour, without starting it: the AP of the teacher on a
sample of the validation images, the classes of both, time and memory of the steps, and the gradient
ratio.

    python tools/preflight.py --config-file configs/quickstart/distilled.py

It says where the distillation may not pay, and why; where it makes no sense, the exit code is 2.
docs/before_you_distil.md says how to read it.
"""

import argparse

import kddetr  # noqa: F401  (first: it filters the warnings of libraries)

# isort: split
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from kddetr.engine import check_config, check_launch, launch, load_config
from kddetr.errors import exit_on_user_error
from kddetr.preflight import run_preflight


def main(argv: list[str] | None = None) -> None:
    """Check the config, measure in the processes that are asked for, and print the report; an error
    of the user ends in exit code 2.
    """
    args = parse(argv)
    with exit_on_user_error():
        cfg = load_config(args.config_file, args.overrides)
        device = check_launch(cfg, args.num_gpus)
        check_config(cfg)
        launch(run, processes=args.num_gpus, device=device, args=(args,))


def run(args: argparse.Namespace) -> None:
    """Measure in one process of the job."""
    setup_logger(distributed_rank=comm.get_rank(), name="kddetr")
    cfg = load_config(args.config_file, args.overrides)
    report = run_preflight(cfg, student_alone=args.student_alone, seconds=args.seconds)
    if comm.is_main_process():
        print(report)
    report.require(force=args.force)


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--config-file", required=True, help="config of the distillation")
    add("--num-gpus", type=int, default=1, help="processes of the training, which share its batch")
    add("--student-alone", default="", metavar="DIR", help="output folder of the student alone")
    add("--seconds", type=float, help="to spend (default: 3 %% of the run, at most 120)")
    add("--force", action="store_true", help="exit code 0 even where the run makes no sense")
    add("overrides", nargs="*", help="key=value of the config")
    return parser.parse_intermixed_args(argv)


if __name__ == "__main__":
    main()
