"""From a transformer to a CNN: the bundled detection transformer teaches a small Faster R-CNN.

Trains the Faster R-CNN of Detectron2 alone on 300 labelled images, distilled on the same images,
and distilled with unlabelled images in half of each batch: same initial weights, same order of the
labelled images, same number of iterations. Writes a table, results.json, results.jsonl (one line
per run) and, into the folder of each run, weights.pth, which Detectron2 loads.
"""

from collections.abc import Sequence
from pathlib import Path

from comparison import (
    METRICS,
    NAMES,
    SEVERAL,
    Comparison,
    arguments,
    begin,
    detector_table,
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
from kddetr.checkpoint import Checkpointer
from kddetr.errors import UsageError
from runs import Run, program, shown

# See Comparison.configs for the order.
CONFIGS = {
    name: f"configs/quickstart/faster_rcnn_{name}.py"
    for name in ("distilled_unlabeled", "distilled", "alone")
}
TEACHER = "teacher"
COLUMNS = ("parameters", *METRICS, "gain", "iterations", "seconds")


def main() -> None:
    """Parse the command line; print the table of old results, or train and report."""
    parser = arguments(__doc__, output="output/heterogeneous", seeds=SEVERAL)
    parser.add_argument(
        "--table", type=Path, metavar="FILE", help="only print the table of this results.jsonl"
    )
    args = parser.parse_args()
    if args.table:
        print(table(read_results(args.table)))
        return
    say = begin()
    seeds = range(args.seed, args.seed + args.seeds)
    runs = Comparison(CONFIGS, args.output).train(seeds, args.iterations, say)
    say("evaluating on the 400 test images")
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
        f" python tools/quickstart/heterogeneous.py --table {shown(args.output / 'results.jsonl')}"
    )
    say(f"done; the students are in {shown(args.output)}/seed*/*/weights.pth")


def teacher_line() -> dict:
    """The line of the bundled teacher in a results.jsonl; it was not trained by this program."""
    teacher = shipped_teacher()
    nothing = dict.fromkeys(("val", "iterations", "seconds", "gain"))
    head = {"config": "configs/quickstart/teacher.py", "run": TEACHER, "seed": None}
    return head | scores(teacher) | {"parameters": parameters(teacher)} | nothing


def run_lines(seed: int, configs: dict[str, str], outcomes: dict[str, dict]) -> list[dict]:
    """The lines of one seed in a results.jsonl, from each run's config and :func:`outcome` by the
    name of the run; gains are measured from the run "alone"."""
    return [
        {"config": configs[name], "run": name, "seed": seed}
        | found
        | {"gain": None if name == "alone" else found["AP"] - outcomes["alone"]["AP"]}
        for name, found in outcomes.items()
    ]


def _finish(run: Run) -> dict:
    """Writes the weights of a finished run's student, and evaluates it."""
    detector = student(run)
    Checkpointer(detector, str(run.output)).save_weights("weights")
    return outcome(run, detector)


def read_results(path: Path) -> list[dict]:
    """The lines of a results.jsonl.

    Raises:
        UsageError: a line is no result, or the teacher's line or a line "alone" is missing.
    """
    lines = read_lines(path, ("run", "seed", *COLUMNS))
    if not {TEACHER, "alone"} <= {line["run"] for line in lines}:
        raise UsageError(
            f"{path} needs a line of the teacher and a line of the student alone: give a file that"
            " this program wrote."
        )
    return lines


def table(lines: Sequence[dict]) -> str:
    """A Markdown table of a results.jsonl, one row per detector, with :func:`comparison.spread`
    over the seeds; gains are measured within a seed."""
    rows = {}
    for name, title in {TEACHER: TEACHER, **NAMES}.items():
        mine = [line for line in lines if line["run"] == name]
        if mine:
            rows[title] = {
                column: [line[column] for line in mine if line[column] is not None]
                for column in COLUMNS
            }
    return detector_table(COLUMNS, rows)


if __name__ == "__main__":
    with program():
        main()
