"""An experiment: what a cheaper distillation saves, and what it costs in AP.

Trains the students of configs/quickstart with fewer points, with points that fewer decoder layers
answer, from a recorded teacher and on pseudo-labels of the same teacher. Every way is trained for
the same iterations, and some also for the time that the live teacher takes. The time of a step is
measured first: steps of all ways take turns in one process. Writes savings.jsonl, one line per
run, and a table for each student.
"""

import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from detectron2.utils.events import EventStorage
from omegaconf import DictConfig

from comparison import (
    METRICS,
    arguments,
    begin,
    markdown,
    outcome,
    read_lines,
    seeded_run,
    spread,
    student,
    write,
    write_lines,
)
from kddetr.engine import Trainer, load_config
from kddetr.errors import UsageError
from runs import ROOT, Run, program, run_all, shown

QUICK = "configs/quickstart/"
COLUMNS = ("way", "seed", "iterations", "cost", *METRICS)
WARM_UP, TIMED_STEPS = 80, 40
THRESHOLDS = (0.3, 0.5, 0.7)
THRESHOLD = 0.5  # the best of them on the validation images, with the transformer and seed 0
MARKED = re.compile(r"(<!-- savings: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
_SPECIFIC = "model.sampler.samplers=[{_target_: kddetr.points.SpecificSampler}]"


@dataclass(frozen=True)
class Way:
    """One way to train a student.

    Attributes:
        table: the heading of its table.
        title: of its row.
        config, changes: the config file and its overrides.
        same_time_as: the way whose time it is trained for; empty: for ``iterations``.
        iterations: of the training.
    """

    table: str
    title: str
    config: str
    changes: tuple[str, ...] = ()
    same_time_as: str = ""
    iterations: int = 1000


def fewer_points(general: int) -> tuple[str, ...]:
    """The override that draws this many general points."""
    return (f"model.sampler.samplers.0.count={general}",)


def pseudo_labels(threshold: float) -> str:
    """The file of the bundled teacher's detections with at least this score, as labels."""
    return f"output/quickstart/pseudo_labels_{threshold}.json"


def labels_from(threshold: float) -> tuple[str, ...]:
    """The override that trains on these pseudo-labels."""
    return (f"dataloader.train.unlabeled.json_file={pseudo_labels(threshold)}",)


FEWER = "300 labelled images"
DETR = "DAB-DETR, 300 labelled and 3,700 unlabelled images"
RCNN = "Faster R-CNN, 300 labelled and 3,700 unlabelled images"
CHOICE = "DAB-DETR, the score from which a detection becomes a label"
TABLES = {"labelled": FEWER, "detr": DETR, "rcnn": RCNN, "threshold": CHOICE}


def _with_unlabelled(
    table: str, kind: str, iterations: int, prefix: str = "", detr: str = ""
) -> dict[str, Way]:
    """The ways to use the images without labels, for one student."""

    def way(title: str, config: str, as_long_as: str = "") -> Way:
        changes = labels_from(THRESHOLD) if config == pseudo else ()
        return Way(table, title, f"{QUICK}{prefix}{config}.py", changes, as_long_as, iterations)

    both = f"{kind}_live"
    specific, recorded, pseudo = f"{detr}specific", f"{detr}recorded", "pseudo_labels"
    return {
        f"{kind}_alone": way("alone, labelled images only", "alone"),
        both: way("live teacher, general and specific points", "distilled_unlabeled"),
        f"{kind}_specific": way("live teacher, specific points", specific),
        f"{kind}_recorded": way("recorded teacher", recorded),
        f"{kind}_pseudo": way("hard pseudo-labels", pseudo),
        f"{kind}_recorded_longer": way("recorded teacher, equal time", recorded, both),
        f"{kind}_pseudo_longer": way("hard pseudo-labels, equal time", pseudo, both),
    }


_DISTILLED = QUICK + "distilled.py"
WAYS = {
    "alone": Way(FEWER, "alone", QUICK + "alone.py"),
    "distilled": Way(FEWER, "50 general and 50 specific points, all layers", _DISTILLED),
    "general_25": Way(FEWER, "25 general, 50 specific", _DISTILLED, fewer_points(25)),
    "specific": Way(FEWER, "50 specific", _DISTILLED, (_SPECIFIC,)),
    "last_layer": Way(
        FEWER, "last student layer only", _DISTILLED, ("model.loss.student_layers=last",)
    ),
    **_with_unlabelled(DETR, "detr", 1000, detr="distilled_"),
    **_with_unlabelled(RCNN, "rcnn", 500, "faster_rcnn_"),
    **{
        f"pseudo_{threshold}": Way(
            CHOICE,
            f"pseudo-labels from a score of {threshold}",
            QUICK + "pseudo_labels.py",
            labels_from(threshold),
        )
        for threshold in THRESHOLDS
    },
}


def main() -> None:
    """Parse the command line; print the tables of old results, or measure, train and report."""
    parser = arguments(__doc__, output="output/savings")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), metavar="WAY")
    parser.add_argument(
        "--table", type=Path, metavar="FILE", help="only print the tables of this savings.jsonl"
    )
    pages = "write the tables of --table between the markers of these Markdown files"
    parser.add_argument("--page", type=Path, nargs="+", default=[], metavar="FILE", help=pages)
    args = parser.parse_args()
    if args.page and not args.table:
        parser.error("--page takes the tables of --table FILE")
    if args.table:
        lines = read_lines(args.table, COLUMNS)
        for page in args.page:
            page.write_text(filled(page.read_text(encoding="utf-8"), lines), encoding="utf-8")
        print(tables(lines))
        return
    say = begin()
    record_teacher(say)
    costs = measured_costs(args.output / "costs.json", say)
    runs = {
        (name, seed): _run(name, seed, args.iterations, costs, args.output)
        for seed in range(args.seed, args.seed + args.seeds)
        for name in args.ways
    }
    different = {run.output: run for run in runs.values()}
    say(f"training {len(different)} students")
    run_all(list(different.values()), say=say)
    lines = [line(name, seed, run, costs[name]) for (name, seed), run in runs.items()]
    file = args.output / "savings.jsonl"
    write_lines(file, lines)
    print("\n" + tables(lines))
    say(f"done; the figures are in {shown(file)}")


def record_teacher(say: Callable[[str], None]) -> None:
    """Makes the record of the bundled teacher and the files of pseudo-labels, where they lack."""
    record = ROOT / "output/quickstart/record"
    tool = [sys.executable, str(ROOT / "tools/record_teacher.py"), "--output", str(record)]
    say("recording the teacher's answers about 4,000 images")
    config = ["--config-file", str(ROOT / QUICK / "distilled.py")]
    subprocess.run([*tool, *config], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    for threshold in THRESHOLDS:
        file = ROOT / pseudo_labels(threshold)
        if not file.is_file():
            chosen = ["--pseudo-labels", str(file), "--threshold", str(threshold)]
            subprocess.run([*tool, *chosen], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)


def measured_costs(file: Path, say: Callable[[str], None]) -> dict[str, float]:
    """CPU seconds of a training step of each way, the medians of steps that take turns.

    All ways are measured at once, so that their ratios hold, and kept in ``file``, so that a
    program that is started again trains for the same number of iterations. A way of equal time
    costs a step what its way of equal iterations costs.
    """
    if not file.is_file():
        timed = dict.fromkeys(map(_timed, WAYS))
        say(f"measuring the step of {len(timed)} ways, which take turns")
        write(file, step_seconds({n: _config(n, "output/savings/timing") for n in timed}))
    costs = json.loads(file.read_text())
    return {name: costs[_timed(name)] for name in WAYS}


def _timed(name: str) -> str:
    """The way whose step is measured: the first one with the same config and changes."""
    way = WAYS[name]
    return next(n for n, w in WAYS.items() if (w.config, w.changes) == (way.config, way.changes))


def _trained(name: str) -> str:
    """The way whose run this is: the first one that is trained alike."""

    def training(way: Way) -> tuple:
        return way.config, way.changes, way.same_time_as, way.iterations

    return next(n for n, w in WAYS.items() if training(w) == training(WAYS[name]))


def _config(name: str, folder: str) -> DictConfig:
    way = WAYS[name]
    return load_config(str(ROOT / way.config), [*way.changes, f"train.output_dir={folder}/{name}"])


def step_seconds(configs: Mapping[str, DictConfig]) -> dict[str, float]:
    """The median CPU seconds of a step of each config, on one thread of this process.

    CPU time does not count what other programs do. The first ``WARM_UP`` steps do not count either:
    in them a teacher that keeps what it has computed meets the 300 labelled images.
    """
    trainers = {name: Trainer(cfg) for name, cfg in configs.items()}
    seconds: dict[str, list[float]] = {name: [] for name in trainers}
    with EventStorage() as storage:
        for step in range(WARM_UP + TIMED_STEPS):
            for name, trainer in trainers.items():
                trainer.iter = storage.iter = step
                trainer.model.train()
                started = time.process_time()
                trainer.run_step()
                seconds[name].append(time.process_time() - started)
    return {name: statistics.median(found[WARM_UP:]) for name, found in seconds.items()}


def _run(
    name: str, seed: int, iterations: int | None, costs: Mapping[str, float], output: Path
) -> Run:
    way = WAYS[name]
    iterations = iterations or way.iterations
    if way.same_time_as:
        iterations = round(iterations * costs[way.same_time_as] / costs[name])
    folder = output / f"seed{seed}" / _trained(name)
    return seeded_run(name, way.config, folder, seed, iterations, way.changes)


def line(name: str, seed: int, run: Run, cost: float) -> dict:
    """The line of one run in a savings.jsonl: AP in percent on the test images, ``cost`` in CPU
    seconds of a step."""
    found = outcome(run, student(run))
    figures = {metric: found[metric] for metric in METRICS}
    head = {"way": name, "config": run.config, "changes": list(WAYS[name].changes), "seed": seed}
    return head | {"iterations": run.iterations, "cost": cost} | figures


def tables(lines: Sequence[dict]) -> str:
    """The Markdown tables of a savings.jsonl, each below its heading."""
    found = {heading: table(heading, lines) for heading in TABLES.values()}
    return "\n\n".join(f"{heading}:\n\n{text}" for heading, text in found.items() if text)


def table(heading: str, lines: Sequence[dict]) -> str:
    """The Markdown table with this heading; empty where none of its ways has a line.

    ``step`` is the CPU time of a step over that of the first way, and ``gain`` the mean difference
    from the first way's AP with the same seed.
    """
    rows = [["", "iterations", "step", "seeds", *METRICS, "gain"]]
    first: list[dict] = []
    for name, way in WAYS.items():
        mine = [x for x in lines if x["way"] == name]
        if way.table != heading or not mine:
            continue
        first = first or mine
        before = {x["seed"]: x["AP"] for x in first}
        gains = [x["AP"] - before[x["seed"]] for x in mine if x["seed"] in before]
        cells = [
            f"{mine[0]['iterations']:,}",
            f"{mine[0]['cost'] / first[0]['cost']:.2f} x",
            str(len(mine)),
            *(spread([x[metric] for x in mine]) for metric in METRICS),
            "" if mine is first or not gains else spread(gains, "+"),
        ]
        rows.append([way.title, *cells])
    return markdown(rows) if len(rows) > 1 else ""


def filled(page: str, lines: Sequence[dict]) -> str:
    """The page with these tables between its markers, ``<!-- savings: NAME -->`` and
    ``<!-- end -->``; NAME is a key of ``TABLES``.

    Raises:
        UsageError: a marker has another name.
    """

    def fill(match: re.Match[str]) -> str:
        start, name, end = match.groups()
        if name not in TABLES:
            raise UsageError(f"The page has a table {name!r}; known are {', '.join(TABLES)}.")
        text = table(TABLES[name], lines)
        return f"{start}\n{text}\n\n{end}" if text else start + end

    return MARKED.sub(fill, page)


if __name__ == "__main__":
    with program():
        main()
