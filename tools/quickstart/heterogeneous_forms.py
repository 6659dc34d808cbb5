"""An experiment that compares ways to distil the small Faster R-CNN of configs/quickstart.

They differ in the points, in where the student's regions are placed, in the class term or in the
weights of the box terms. Trains for fewer iterations than heterogeneous.py and evaluates on the
validation images. Writes a table and results.jsonl, one line per run.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from comparison import (
    METRICS,
    arguments,
    begin,
    markdown,
    read_lines,
    seeded_run,
    spread,
    write_lines,
)
from kddetr.engine.metrics import read_metrics
from runs import Run, program, run_all, shown

ALONE = "configs/quickstart/faster_rcnn_alone.py"
DISTILLED = "configs/quickstart/faster_rcnn_distilled.py"
ITERATIONS = 900
COLUMNS = ("form", "seed", *METRICS)
AT_POINTS = ("model.query_placement=null",)
EXACT = ("model.query_placement.shift=0.0", "model.query_placement.scale=0.0")
_SAMPLERS = {
    "general": "{_target_: kddetr.points.GeneralSampler, count: 50}",
    "specific": "{_target_: kddetr.points.SpecificSampler}",
    "student": "{_target_: kddetr.points.StudentSampler, count: 50}",
    "nearby": "{_target_: kddetr.points.NearbySampler}",
}


def points(*names: str) -> str:
    """The override that selects these samplers of points."""
    return f"model.sampler.samplers=[{', '.join(_SAMPLERS[name] for name in names)}]"


def boxes(l1: float, giou: float) -> tuple[str, str]:
    """The overrides that set these weights of the box terms."""
    return f"model.loss.box_losses.0.weight={l1}", f"model.loss.box_losses.1.weight={giou}"


@dataclass(frozen=True)
class Form:
    """One way to distil: its description in the table, and its overrides of the config."""

    points: str = "general, specific"
    regions: str = "at the answers, moved"
    class_term: str = "KL, T 10"
    box_terms: str = "5, 2"
    changes: tuple[str, ...] = ()
    config: str = DISTILLED


FORMS = {
    "alone": Form("", "", "", "", config=ALONE),
    "chosen": Form(),
    "at_points": Form(regions="at the points", changes=AT_POINTS),
    "exact": Form(regions="at the answers", changes=EXACT),
    "nearby": Form(
        points="general, nearby",
        regions="at the points",
        changes=(*AT_POINTS, points("general", "nearby")),
    ),
    "student": Form(
        points="the student's proposals",
        regions="at the points",
        changes=(*AT_POINTS, points("student")),
    ),
    "three": Form(
        points="general, specific, the student's proposals",
        changes=(points("general", "specific", "student"),),
    ),
    "specific": Form(points="specific", changes=(points("specific"),)),
    "background": Form(
        class_term="KL with background, T 10",
        changes=("model.loss.class_loss._target_=kddetr.losses.KLWithBackground",),
    ),
    "background_1": Form(
        class_term="KL with background, T 1",
        changes=(
            "model.loss.class_loss._target_=kddetr.losses.KLWithBackground",
            "model.loss.class_loss.temperature=1.0",
        ),
    ),
    "kl_1": Form(class_term="KL, T 1", changes=("model.loss.class_loss.temperature=1.0",)),
    "bce": Form(
        class_term="BCE",
        changes=(
            "model.loss.class_loss._target_=kddetr.losses.BinaryCrossEntropy",
            "model.loss.class_loss.temperature=1.0",
        ),
    ),
    "bce_1": Form(
        class_term="BCE, weight 1",
        changes=(
            "model.loss.class_loss._target_=kddetr.losses.BinaryCrossEntropy",
            "model.loss.class_loss.temperature=1.0",
            "model.loss.class_loss.weight=1.0",
        ),
    ),
    "no_boxes": Form(box_terms="0, 0", changes=boxes(0.0, 0.0)),
    "light_boxes": Form(box_terms="1, 0.5", changes=boxes(1.0, 0.5)),
    "heavy_boxes": Form(box_terms="10, 4", changes=boxes(10.0, 4.0)),
    "exact_no_boxes": Form(
        regions="at the answers", box_terms="0, 0", changes=(*EXACT, *boxes(0.0, 0.0))
    ),
}


def main() -> None:
    """Parse the command line; print the table of old results, or train and report."""
    parser = arguments(__doc__, output="output/heterogeneous_forms")
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS), metavar="FORM")
    parser.add_argument(
        "--table", type=Path, metavar="FILE", help="only print the table of this results.jsonl"
    )
    args = parser.parse_args()
    if args.table:
        print(table(read_lines(args.table, COLUMNS)))
        return
    say = begin()
    iterations = args.iterations or ITERATIONS
    runs = {}
    for seed in range(args.seed, args.seed + args.seeds):
        for name in args.forms:
            form, folder = FORMS[name], args.output / f"seed{seed}" / name
            run = seeded_run(name, form.config, folder, seed, iterations, form.changes)
            runs[name, seed] = run
    say(f"training {len(runs)} students for {iterations} iterations")
    run_all(list(runs.values()), say=say)
    lines = [line(name, seed, run) for (name, seed), run in runs.items()]
    file = args.output / "results.jsonl"
    write_lines(file, lines)
    print("\n" + table(lines))
    say(f"done; the figures are in {shown(file)}")


def line(name: str, seed: int, run: Run) -> dict:
    """The line of one run in a results.jsonl, with its last AP (percent, validation images)."""
    last = [m for m in read_metrics(run.output) if "bbox/AP" in m][-1]
    figures = {metric: last[f"bbox/{metric}"] for metric in METRICS}
    head = {"form": name, "config": run.config, "changes": list(FORMS[name].changes)}
    return head | {"seed": seed, "iterations": run.iterations} | figures


def table(lines: Sequence[dict]) -> str:
    """A Markdown table of a results.jsonl, one row per form, with :func:`comparison.spread` over
    the seeds."""
    rows = [["points", "regions", "class term", "L1, GIoU", "seeds", *METRICS]]
    for name, form in FORMS.items():
        mine = [line for line in lines if line["form"] == name]
        if mine:
            words = (form.points or "none", form.regions, form.class_term, form.box_terms)
            figures = (spread([line[metric] for line in mine]) for metric in METRICS)
            rows.append([*words, str(len(mine)), *figures])
    return markdown(rows)


if __name__ == "__main__":
    with program():
        main()
