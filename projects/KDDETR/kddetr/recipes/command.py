"""What ``tools/distill.py`` and ``tools/train.py`` share: flags, and how they run."""

import argparse
import shlex
import sys
from dataclasses import fields

from ..engine import program
from ..errors import UsageError, exit_on_user_error
from ..report import ReportHook
from .decisions import print_decisions
from .measuring import measure_first
from .request import Request
from .running import arguments, config_to_resume, refuse_torchrun, write_plan
from .seeds import train_seeds
from .students import students


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of both programs."""
    add = parser.add_argument
    add("--output", default="", metavar="DIR", help="output folder")
    add(
        "--image-size",
        type=int,
        metavar="PIXELS",
        help="short side of a test image; 0 leaves all images as large as they are",
    )
    add("--dry-run", action="store_true", help="write the config and stop")
    add("--resume", action="store_true", help="continue the run in the output folder")
    add("--fast-dev-run", action="store_true", help="try two steps of everything, and stop")
    add("--no-preflight", action="store_true", help="train without measuring first")
    add("--force", action="store_true", help="train even where the preflight refuses")
    add("--seeds", type=int, default=0, metavar="N", help="train N seeds, also without a teacher")
    add("--num-gpus", type=int, default=1, metavar="N", help="processes, one for each GPU")
    add("overrides", nargs="*", metavar="key=value", help="values of the config")


def request_of(
    parser: argparse.ArgumentParser, argv: list[str] | None
) -> tuple[Request, argparse.Namespace, str]:
    """The parsed command line: what is asked for, all arguments, and the command itself."""
    argv = sys.argv[1:] if argv is None else argv
    args = parser.parse_intermixed_args(argv)
    for name in ("teacher", "data"):  # what may be left out is followed by overrides
        value = getattr(args, name, None)
        if value and "=" in value and not value.startswith((".", "/", "~")):
            args.overrides.insert(0, value)
            setattr(args, name, "")
    if getattr(args, "data", "") == "-":
        args.data = ""
    values = {f.name: getattr(args, f.name) for f in fields(Request) if hasattr(args, f.name)}
    model = getattr(args, "student", None) or getattr(args, "model", "")
    told = [word for word in argv if word not in ("--dry-run", "--fast-dev-run")]
    command = shlex.join(["python", f"tools/{parser.prog}", *told])
    return Request(**values | {"model": model}), args, command


def run(request: Request, args: argparse.Namespace, command: str) -> None:
    """Plan, print and train; an error of the user ends in a sentence and exit code 2."""
    with exit_on_user_error():
        if request.model == "list":
            width = max(map(len, students()))
            print("\n".join(f"{name:{width}}  {words}" for name, words in students().items()))
            return
        if "teacher" in vars(args) and not request.teacher:
            raise UsageError(
                "Name the teacher first: its file, the folder of its run, hf://OWNER/NAME, or a"
                " name in Detectron2's model zoo; tools/train.py trains a detector without one."
            )
        refuse_torchrun()
        if args.seeds < 0:
            raise UsageError(f"--seeds {args.seeds} is no number of seeds: give 1 or more.")
        flags, overrides = ["--num-gpus", str(request.num_gpus)], list[str]()
        if args.resume:
            file, overrides = config_to_resume(request), request.config_overrides
            print(f"{file} is continued, as it was decided at its start.")
            flags.append("--resume")
        else:
            file = _planned(request, args, command)
        if args.fast_dev_run:
            flags.append("--fast-dev-run")
        if args.dry_run:
            print(f"Train it with: python train_net.py --config-file {shlex.quote(file)}")
            return
        if args.seeds and not args.fast_dev_run:
            train_seeds(
                file,
                range(args.seeds),
                flags=flags[:2],
                overrides=overrides,
                distils=bool(request.teacher),
            )
            return
    program.start(arguments(file, overrides, flags), hooks=[ReportHook])


def _planned(request: Request, args: argparse.Namespace, command: str) -> str:
    """Plan, print and write; returns the config file. Data report and preflight come before a
    training.
    """
    if request.teacher and not request.model:
        raise UsageError("Name a student with --student NAME; --student list shows all.")
    made, file = write_plan(request, command)
    print_decisions(made.decisions)
    print(f"\nThe config is {file}", flush=True)
    if not (args.no_preflight or args.dry_run or args.fast_dev_run):
        measure_first(made, file, num_gpus=request.num_gpus, force=args.force)
    return file
