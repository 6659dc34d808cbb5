"""The paper's tables beside your finished runs, and the commands that fill the empty cells.

A cell is "paper / here", where "here" is the mean of the runs that count. A run counts for a cell
if it has its final weights and final evaluation, and its saved config equals that of the cell's
recipe. The batch size, seed, device, folders and the number of loading processes may differ, and
lengths in iterations by 0.1 %, for their rounding has changed. Every other run is listed below the
tables, with what is different or that it is not finished. What is not in a config is not compared:
the number of processes that shared the batch, and the origin of a teacher's file outside the output
folder.
"""

import argparse
import functools
import math
import re
import shlex
import statistics
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kddetr  # noqa: F401  (first: it filters the warnings of libraries)

# isort: split
from omegaconf import DictConfig, OmegaConf

from kddetr.engine import load_config
from kddetr.engine.config.differences import settings as config_settings
from kddetr.engine.config.scaling import BATCH, LENGTHS
from kddetr.engine.metrics import read_metrics
from kddetr.errors import UserError, exit_on_user_error
from paper import ABLATION, LINES, Recipe

ROOT = Path(__file__).resolve().parents[1]
METRICS = ("bbox/AP", "bbox/AP50", "bbox/AP75")

# Keys of a config that do not belong to a recipe: folders, periods, files of weights.
IGNORED = re.compile(
    r"train\.(output_dir|device|seed|log_period|watch_period|watch_images|report|report_images"
    r"|eval_period|best_metric|best_mode|progress|loggers|time_limit|classes"
    r"|(batch_scaling|checkpointer|ddp)\..*)"
    r"|dataloader\.(train\.seed|(train|test)\.num_workers)"
    r"|model\..*checkpoint|(.*\.)?checkpoint_activations"
)
_IN_LIST = re.compile(r"(.*)\.\d+\._target_")  # a call in a list
FASTER_RCNN = (
    "Faster R-CNN: the paper gives its gain, but not its schedule, points or loss. Here its"
    " schedule is Detectron2's\n1x (37.9 AP by Detectron2's own table), and its points and loss are"
    " the best on the bundled data."
)
ROUNDING = 1e-3  # the largest relative difference of two lengths that count as equal


@dataclass(frozen=True)
class Found:
    """A run in the output folder: its own folder and its saved config."""

    folder: Path
    cfg: DictConfig

    @functools.cached_property
    def settings(self) -> dict[str, Any]:
        """See :func:`settings`."""
        return settings(self.cfg)

    @functools.cached_property
    def results(self) -> dict[str, float] | None:
        """AP by the name of the metric after the last iteration; None for an unfinished run."""
        last = [line for line in read_metrics(self.folder) if _is_evaluation(line)][-1:]
        evaluated = last and last[0]["iteration"] + 1 >= self.cfg.train.max_iter
        if not (evaluated and (self.folder / "model_final.pth").is_file()):
            return None
        found = {name: last[0].get(name) for name in METRICS}
        return {name: float("nan") if value is None else value for name, value in found.items()}


def _is_evaluation(line: dict) -> bool:
    """Whether a line of ``metrics.json`` has an AP; null, for NaN, is one."""
    return METRICS[0] in line and all(
        type(line.get(name)) in (int, float, type(None)) for name in METRICS
    )


def find_runs(output: Path) -> tuple[list[Found], list[str]]:
    """All runs in a folder, and sentences about those whose config is missing or unreadable."""
    runs, complaints = [], []
    for file in sorted(output.rglob("config.yaml")):
        try:
            runs.append(Found(file.parent, load_config(str(file))))
        except (UserError, OSError, UnicodeDecodeError) as error:
            complaints.append(f"{file.parent}: {error}")
    for file in sorted(output.rglob("metrics.json")):
        if not (file.parent / "config.yaml").exists():
            complaints.append(f"{file.parent}: it has no config.yaml, which says what was trained")
    return runs, complaints


@functools.cache
def recipe_config(recipe: Recipe, batch: int | None = None) -> DictConfig:
    """The config of a recipe, with another batch size if one is given."""
    changes = [*recipe.changes, *([f"{BATCH}={batch}"] if batch else [])]
    return load_config(str(ROOT / "configs" / f"{recipe.config}.py"), changes)


def settings(cfg: DictConfig) -> dict[str, Any]:
    """The values that decide the result of a run, by dotted key; references are not resolved.

    A list is one value. Of a list of calls, such as the samplers of a distillation, this is its
    length, beside the arguments of the calls.
    """
    found = config_settings(cfg)
    calls = Counter(match[1] for key in found if (match := _IN_LIST.fullmatch(key)))
    found |= {key: f"a list of {count}" for key, count in calls.items()}
    if not found.get("dataloader.train.unlabeled_per_batch"):
        found = {k: v for k, v in found.items() if not k.startswith("dataloader.train.unlabeled")}
    # The recipes leave it to the card whether they are trained in float32 or bfloat16.
    if not found.get("train.amp.enabled") or found.get("train.amp.dtype") == "bfloat16":
        found.pop("train.amp.enabled", None)
        found.pop("train.amp.dtype", None)
    start = found.get("train.init_checkpoint") or ""
    found["train.init_checkpoint"] = start.rpartition("/")[2]  # a local copy or the address
    return {key: value for key, value in found.items() if not IGNORED.fullmatch(key)}


@functools.cache
def recipe_settings(recipe: Recipe, batch: int | None) -> dict[str, Any]:
    """The :func:`settings` of a recipe at a batch size."""
    return settings(recipe_config(recipe, batch))


def differences(run: Found, recipe: Recipe) -> list[str]:
    """One phrase for each setting in which a run differs from a recipe; a list is one setting."""
    here, there = run.settings, recipe_settings(recipe, OmegaConf.select(run.cfg, BATCH))
    phrases: dict[str, str] = {}
    for key in sorted(here.keys() | there.keys()):
        mine, theirs = (values.get(key, "unset") for values in (here, there))
        inside = any(key.startswith(f"{list_or_value}.") for list_or_value in phrases)
        if not inside and not _equal(key, mine, theirs):
            phrases[key] = f"{key} is {mine}, not {theirs}"
    return list(phrases.values())


def _equal(key: str, mine: Any, theirs: Any) -> bool:
    if key in LENGTHS and isinstance(mine, int) and isinstance(theirs, int):
        return math.isclose(mine, theirs, rel_tol=ROUNDING)
    return str(mine) == str(theirs)


class Results:
    """All runs that were found, sorted by the recipes of the cells.

    Attributes:
        finished: recipe to its finished runs.
        begun: recipe to its unfinished runs.
        others: sentences about all other runs: those that differ from every recipe, and those that
            are not finished.
        runs: folder to run.
    """

    def __init__(self, runs: Iterable[Found], recipes: Iterable[Recipe]):
        recipes = list(recipes)
        self.finished: dict[Recipe, list[Found]] = {recipe: [] for recipe in recipes}
        self.begun: dict[Recipe, list[Found]] = {recipe: [] for recipe in recipes}
        self.others: list[str] = []
        self.runs = {run.folder.resolve(): run for run in runs}
        for run in self.runs.values():
            gaps = {r: [*differences(run, r), *self._teacher(run, r)] for r in recipes}
            nearest = min(gaps, key=lambda recipe: len(gaps[recipe]))
            if not gaps[nearest]:
                (self.begun if run.results is None else self.finished)[nearest].append(run)
            if gaps[nearest] or run.results is None:
                self.others.append(_described(run, nearest, gaps[nearest]))

    def _teacher(self, run: Found, recipe: Recipe) -> list[str]:
        """A phrase if a run's teacher is a run in the folder, but not of the teacher's recipe."""
        file = OmegaConf.select(run.cfg, "model.teacher.checkpoint")
        source = self.runs.get(Path(file).resolve().parent) if file and recipe.teacher else None
        if source is None or not differences(source, recipe.teacher):
            return []
        wanted = f"configs/{recipe.teacher.config}.py"
        return [f"its teacher comes from {source.folder}, which is not a run of {wanted}"]

    def mean(self, recipe: Recipe | None, metric: str = METRICS[0]) -> float | None:
        """The mean over the finished runs of a recipe; None without a run."""
        values = [run.results[metric] for run in self.finished.get(recipe, [])]
        return statistics.mean(values) if values else None


def _described(run: Found, nearest: Recipe, gaps: list[str]) -> str:
    """One sentence about a run that does not count, and its differences from a recipe."""
    ap = "not finished" if run.results is None else f"AP {run.results[METRICS[0]]:.1f}"
    if not gaps:
        return f"{run.folder}: {ap}, a run of configs/{nearest.config}.py"
    rest = f", and {len(gaps) - 3} more" if len(gaps) > 3 else ""
    differing = "; ".join(gaps[:3])
    return f"{run.folder}: {ap}, differs from configs/{nearest.config}.py: {differing}{rest}"


def main_table(results: Results) -> str:
    """The paper's main table in Markdown."""
    rows = [["student", "teacher", "epochs", "alone", "KD-DETR", "gain", "teacher AP"]]
    for line in LINES:
        alone, pair = results.mean(line.baseline), results.mean(line.pair)
        teacher = results.mean(line.pair.teacher)
        gain = None if alone is None or pair is None else pair - alone
        aps = _cell(line.alone, alone), _cell(line.distilled, pair), _cell(line.gain, gain, "+")
        names = line.student, line.teacher, line.epochs
        rows.append([*names, *aps, _cell(line.teacher_ap, teacher)])
    return markdown(rows)


def ablation_table(results: Results) -> str:
    """The paper's ablation of the points in Markdown."""
    rows = [["general", "specific", "foreground weight", "AP", "AP50", "AP75"]]
    for point in ABLATION:
        marks = ["yes" if used else "" for used in (point.general, point.specific)]
        cells = [
            _cell(paper, results.mean(point.recipe, metric))
            for paper, metric in zip(point.ap, METRICS, strict=True)
        ]
        rows.append([*marks, "yes" if point.foreground else "", *cells])
    return markdown(rows)


def _cell(paper: float | None, here: float | None, sign: str = "") -> str:
    return " / ".join("-" if value is None else f"{value:{sign}.1f}" for value in (paper, here))


def markdown(rows: list[list[str]]) -> str:
    """A Markdown table with aligned columns; the first row is the header."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [[cell.ljust(width) for cell, width in zip(row, widths)] for row in rows]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def wanted() -> list[Recipe]:
    """The recipes of all cells, without repetition, a teacher before its students."""
    found: dict[Recipe, None] = {}
    for line in LINES:
        found |= dict.fromkeys((line.pair.teacher, line.baseline, line.pair))
    return list(found | dict.fromkeys(point.recipe for point in ABLATION))


def commands(results: Results, output: Path) -> list[str]:
    """The commands for the recipes without a finished run, a teacher before its students."""
    empty = [recipe for recipe, runs in results.finished.items() if not runs]
    return [command(recipe, results, output) for recipe in empty]


def command(recipe: Recipe, results: Results, output: Path) -> str:
    """The command of one recipe, which resumes an unfinished run or starts in a new folder."""
    words = ["python", "train_net.py", "--config-file"]
    folder, gpus = place(recipe, results, output), ["--num-gpus", str(recipe.gpus)]
    if results.begun[recipe]:
        # The saved config, because its seed and batch size may differ from the recipe's.
        words += [str(folder / "config.yaml"), *gpus, "--resume", f"train.output_dir={folder}"]
        return shlex.join(words)
    words += [f"configs/{recipe.config}.py", *gpus]
    if recipe.teacher:
        weights = place(recipe.teacher, results, output) / "model_final.pth"
        words.append(f"model.teacher.checkpoint={weights}")
    words += recipe.changes
    plain = recipe_config(Recipe(recipe.config))
    if recipe.batch not in (None, OmegaConf.select(plain, BATCH)):
        words.append(f"{BATCH}={recipe.batch}")
    if str(folder) != plain.train.output_dir:
        words.append(f"train.output_dir={folder}")
    return shlex.join(words)


def place(recipe: Recipe, results: Results, output: Path) -> Path:
    """The folder of a recipe's run, or the folder without a run where its command will train."""
    for run in (*results.finished[recipe], *results.begun[recipe]):
        return run.folder
    folder, number = output / recipe.folder, 2
    while folder.resolve() in results.runs:
        folder, number = output / f"{recipe.folder}_{number}", number + 1
    return folder


def report(output: Path) -> str:
    """The text that the program prints."""
    runs, complaints = find_runs(output)
    results = Results(runs, wanted())
    parts = [
        "COCO val2017 AP, paper / here (-: none). Paper: KD-DETR, CVPR 2024, arXiv 2211.08071 v3.",
        main_table(results),
        FASTER_RCNN,
        "Ablation of the points, DAB-DETR R18 from DAB-DETR R50:",
        ablation_table(results),
    ]
    counted = [run.folder for found in results.finished.values() for run in found]
    if counted:
        parts.append("Runs counted:\n" + "\n".join(f"  {folder}" for folder in sorted(counted)))
    if apart := [*results.others, *complaints]:
        parts.append("Runs not counted:\n" + "\n".join(f"  {text}" for text in apart))
    if todo := commands(results, output):
        parts.append(
            "Commands for the empty cells, a teacher before its students. The class term of the"
            " published loss is\na sum over the images of a process: to distil with another number"
            f" of processes N, give --num-gpus N\nand {BATCH}=(8 x N); the number of iterations and"
            " the learning rates follow."
        )
        parts.append("\n".join(todo))
    return "\n\n".join(parts)


def main() -> None:
    """Parse the command line, print the report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    where = "where the runs are (default: output)"
    parser.add_argument("--output", type=Path, default=Path("output"), help=where)
    output = parser.parse_args().output
    if not output.is_dir():
        print(f"There is no folder {output}, so no runs are counted.\n")
    print(report(output))


if __name__ == "__main__":
    with exit_on_user_error():
        main()
