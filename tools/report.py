"""The report of a run, or the comparison of several runs.

    python tools/report.py output/my_run
    python tools/report.py output/distilled_0 output/alone_0 output/distilled_1 output/alone_1

Of one run it writes report.html into the output folder of the run. Of several runs it prints a
table and what may be claimed, and writes compare.html into the current folder. Runs whose settings
differ only in train.seed form a group; runs of two groups with the same seed are a pair.
"""

import argparse

import kddetr  # noqa: F401  (first: it filters the warnings of libraries)

# isort: split
from kddetr.errors import exit_on_user_error
from kddetr.report import (
    compare_runs,
    comparison_text,
    read_run,
    write_comparison,
    write_report,
)
from kddetr.report.write import IMAGES


def main(argv: list[str] | None = None) -> None:
    """Parse the command line and write the page; an error of the user ends in exit code 2."""
    args = parse(argv)
    with exit_on_user_error():
        if len(args.runs) == 1:
            print(write_report(args.runs[0], alone=args.alone, images=args.images))
            return
        comparison = compare_runs([read_run(folder) for folder in args.runs])
        print(comparison_text(comparison))
        print(write_comparison(comparison, args.output))


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("runs", nargs="+", metavar="RUN", help="output folder of a run")
    add(
        "--alone",
        action="append",
        default=[],
        metavar="RUN",
        help="a run of the student without a teacher, for the report of one run; may be repeated"
        " (default: those in the folders beside the run)",
    )
    add(
        "--images",
        type=int,
        default=IMAGES,
        help=f"how many test images the detectors are asked about (default {IMAGES}; 0: none)",
    )
    add("--output", default="compare.html", metavar="FILE", help="the page that compares runs")
    args = parser.parse_args(argv)
    if args.images < 0:
        parser.error(f"--images {args.images} is below 0")
    if args.alone and len(args.runs) > 1:
        parser.error("--alone is for the report of one run: name all runs to compare as RUN")
    return args


if __name__ == "__main__":
    main()
