"""Trains everything that docs/evidence.md shows, and writes its tables and plots.

    python tools/evidence.py

Each run is a line of docs/evidence/SCALE.jsonl. One that is there already is not repeated, and an
unfinished run is resumed, so the program can be stopped at any time and started again.
"""

import argparse
import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import kddetr  # noqa: F401  (first: it filters the warnings of libraries)

# isort: split
from experiments import ROOT, pages, plan
from experiments.lines import Experiment
from experiments.results import Results
from experiments.scales import Scale, quick
from experiments.session import Session
from kddetr.errors import UsageError

# isort: split
from comparison import begin, positive
from runs import program, run_all

SCALES = {scale.name: scale for scale in pages.SCALES}


def main() -> None:
    """Parse the command line, train what is missing, write the pages."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--only", nargs="+", metavar="NAME", help="experiments, or parts of the page")
    add("--lines", nargs="+", metavar="NAME", help="only lines with these names")
    add("--seeds", type=positive, default=None, help="at most this many seeds of a line")
    add("--again", action="store_true", help="also repeat runs whose config has changed since")
    add("--scale", choices=SCALES, default="cpu", help="gpu: a larger pair (default cpu)")
    add("--quick", action="store_true", help="every line once, tiny, in a temporary folder")
    add("--list", action="store_true", help="print the runs that are missing, and train nothing")
    add("--page-only", action="store_true", help="write tables and plots, and train nothing")
    add("--processes", type=positive, default=2, help="trainings at the same time (default 2)")
    add("--docs", type=Path, default=ROOT / "docs", help="the folder of the pages")
    args = parser.parse_args()
    chosen = plan.named(args.only)
    plan.check_lines(chosen, args.lines or ())
    if args.page_only:
        pages.write_pages(args.docs)
        return
    with scale_of(args) as (scale, docs):
        docs = docs or args.docs
        session = session_of(chosen, scale, docs, args)
        if args.list:
            print(listing(session))
            return
        try:
            train(session)
        finally:  # also where it is stopped
            if not args.quick:
                pages.write_pages(docs)
    if session.failed:
        raise UsageError(f"These runs failed: {', '.join(session.failed)}; see above.")


@contextlib.contextmanager
def scale_of(args: argparse.Namespace) -> Iterator[tuple[Scale, Path | None]]:
    """The scale, and a folder for its results where they are not kept."""
    if not args.quick:
        yield SCALES[args.scale], None
        return
    with tempfile.TemporaryDirectory() as folder:
        yield quick(Path(folder)), Path(folder) / "docs"


def session_of(
    chosen: list[Experiment], scale: Scale, docs: Path, args: argparse.Namespace
) -> Session:
    """The series of trainings that the command line asks for."""
    results = Results(pages.results_file(docs, scale))
    steps = pages.steps_file(docs, scale)
    return Session(
        chosen,
        scale,
        results,
        steps,
        print,
        seeds=args.seeds,
        lines=args.lines,
        again=args.again,
        processes=args.processes,
    )


def listing(session: Session) -> str:
    """One line for each missing run, and how long they will take."""
    found = [
        " ".join([f"{e.name}/{line.name}:", job.config, *job.overrides, f"seed {job.seed}"])
        for e, line, job in session.missing()
    ]
    return "\n".join([*found, f"{len(found)} runs, {session.left()}"])


def train(session: Session) -> None:
    """Train what is missing."""
    session.say = begin(session.scale.use_data)
    session.mark_changed()
    session.say(f"{len(list(session.missing()))} runs, {session.left()}")
    run_all(
        session.runs(),
        processes=session.processes,
        say=session.say,
        every=60.0,
        finished=session.finished,
        failed=session.give_up,
    )


if __name__ == "__main__":
    with program():
        main()
