"""From a transformer to a CNN: the shipped detection transformer teaches a small Faster R-CNN.

Trains the Faster R-CNN of Detectron2 alone on 300 labelled images, distilled on the same images,
and distilled with images without labels in half of each batch: same initial weights, same order of
the labelled images, same iterations. Ends with a table, results.json, results.jsonl (a line a run),
and beside every run weights.pth, an ordinary file of Detectron2.
"""

from collections.abc import Sequence
from pathlib import Path

import quiet  # noqa: F401  (before what warns)
from comparison import (
    METRICS,
    NAMES,
    Comparison,
    arguments,
    begin,
    markdown,
    outcome,
    parameters,
    read_lines,
    result,
    scores,
    shipped_teacher,
    student,
    write_lines,
    write_results,
)
from training_runs import Run, one_sentence, shown

from kddetr.checkpoint import Checkpointer

# The slowest first.
CONFIGS = {
    name: f"configs/quickstart/faster_rcnn_{name}.py"
    for name in ("distilled_unlabeled", "distilled", "alone")
}
TEACHER = "teacher"
COLUMNS = ("parameters", *METRICS, "gain", "iterations", "seconds")


def main() -> None:
    """Parse the command line; print a table of old results, or run and report."""
    several = "how many seeds; more than one also gives the student alone the distilled run's time"
    parser = arguments(__doc__, output="output/heterogeneous", seeds=several)
    parser.add_argument(
        "--table", type=Path, metavar="FILE", help="print the table of a results.jsonl, no more"
    )
    args = parser.parse_args()
    if args.table:
        print(table(read_results(args.table)))
        return
    say = begin()
    seeds = range(args.seed, args.seed + args.seeds)
    runs = Comparison(CONFIGS, args.output).train(seeds, args.iterations, say)
    say("evaluating on the test images, which nothing was chosen on")
    lines = [teacher_line()]
    results = []
    for seed, group in runs.items():
        outcomes = {name: _finish(run) for name, run in group.items()}
        lines += run_lines(seed, {name: run.config for name, run in group.items()}, outcomes)
        results.append(result(seed, lines[0]["AP"], outcomes))
    write_results(args.output, results)
    write_lines(args.output / "results.jsonl", lines)
    print("\n" + table(lines))
    print(
        "\nAP in percent on 400 test images. The teacher has seen labels for all 4,000 training"
        "\nimages, the students for 300. The table again:"
        f" python tools/heterogeneous.py --table {shown(args.output / 'results.jsonl')}"
    )
    say(f"done; the students are in {shown(args.output)}/seed*/*/weights.pth")


def teacher_line() -> dict:
    """The shipped teacher's line of a results.jsonl: it was not trained here."""
    teacher = shipped_teacher()
    nothing = dict.fromkeys(("val", "iterations", "seconds", "gain"))
    head = {"config": "configs/quickstart/teacher.py", "run": TEACHER, "seed": None}
    return head | scores(teacher) | {"parameters": parameters(teacher)} | nothing


def run_lines(seed: int, configs: dict[str, str], outcomes: dict[str, dict]) -> list[dict]:
    """One seed's lines of a results.jsonl.

    Args:
        seed: of the runs.
        configs: name of a run to its config.
        outcomes: name of a run to its :func:`outcome`; "alone" is what gains are measured from.
    """
    return [
        {"config": configs[name], "run": name, "seed": seed}
        | found
        | {"gain": None if name == "alone" else found["AP"] - outcomes["alone"]["AP"]}
        for name, found in outcomes.items()
    ]


def _finish(run: Run) -> dict:
    """Write a finished run's weights alone, and measure them."""
    detector = student(run)
    Checkpointer(detector, str(run.output)).save_weights("weights")
    return outcome(run, detector)


def read_results(path: Path) -> list[dict]:
    """A results.jsonl.

    Raises:
        ValueError: a line is no result, or there is no teacher or no run in it.
    """
    lines = read_lines(path, ("run", "seed", *COLUMNS))
    if not {TEACHER, "alone"} <= {line["run"] for line in lines}:
        raise ValueError(f"{path} needs a line of the teacher and one of the student alone.")
    return lines


def table(lines: Sequence[dict]) -> str:
    """Markdown of a results.jsonl: one row a detector; of several seeds mean and sample standard
    deviation, gains measured within a seed."""
    rows = {}
    for name, title in {TEACHER: TEACHER, **NAMES}.items():
        mine = [line for line in lines if line["run"] == name]
        if mine:
            rows[title] = {
                column: [line[column] for line in mine if line[column] is not None]
                for column in COLUMNS
            }
    return markdown(COLUMNS, rows)


if __name__ == "__main__":
    with one_sentence():
        main()
