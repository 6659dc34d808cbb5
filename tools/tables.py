"""The paper's tables beside the runs that are finished, and the commands for the empty cells.

A cell is "paper / here", the mean where several runs count. A run counts for a cell when its
weights and its last evaluation are there and its saved config is the recipe's at whatever batch;
seed, device, folders and the number of loading processes may differ. Any other difference keeps it
out, and is named below the tables. What a config does not hold is not looked at: how many processes
shared the batch, and where a teacher's file outside the folder came from.
"""

import argparse
import functools
import re
import shlex
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import quiet  # noqa: F401  (before what warns)
from detectron2.utils.registry import locate
from omegaconf import DictConfig, OmegaConf
from paper import ABLATION, LINES, Recipe
from training_runs import ROOT, Run, one_sentence

from kddetr.engine import ConfigError, load_config

BATCH = "dataloader.train.total_batch_size"
METRICS = ("bbox/AP", "bbox/AP50", "bbox/AP75")

# Keys of a config that are no part of a recipe: where, how often, from whose file.
NO_MATTER = re.compile(
    r"train\.(output_dir|device|seed|log_period|eval_period|best_metric"
    r"|(batch_scaling|checkpointer|ddp)\..*)"
    r"|dataloader\.(train\.seed|(train|test)\.num_workers)"
    r"|model\..*checkpoint|(.*\.)?checkpoint_activations"
)
FASTER_RCNN = (
    "Faster R-CNN: the paper gives its gain alone, and not its schedule, points or loss. Here it is"
    " Detectron2's 1x\n(37.9 AP by Detectron2's own table), distilled with what won on the bundled"
    " data."
)
MANY = 12  # differences, beyond which a run is no attempt at a recipe


@dataclass(frozen=True)
class Found:
    """A run below the output folder."""

    folder: Path
    cfg: DictConfig

    @property
    def batch(self) -> int | None:
        return OmegaConf.select(self.cfg, BATCH)

    @functools.cached_property
    def settings(self) -> dict[str, Any]:
        """See :func:`settings`."""
        return settings(self.cfg)

    @functools.cached_property
    def results(self) -> dict[str, float] | None:
        """Of the evaluation after the last iteration; None: the run is not finished."""
        iterations = self.cfg.train.max_iter
        run = Run(self.folder.name, "", self.folder, iterations)
        last = [line for line in run.metrics() if METRICS[0] in line][-1:]
        if not (run.checkpoint.is_file() and last and last[0]["iteration"] + 1 >= iterations):
            return None
        return {name: last[0].get(name, float("nan")) for name in METRICS}


def find_runs(output: Path) -> tuple[list[Found], list[str]]:
    """All runs below a folder, and sentences about those that cannot be read."""
    runs, complaints = [], []
    for file in sorted(output.rglob("config.yaml")):
        try:
            runs.append(Found(file.parent, load_config(str(file))))
        except ConfigError as error:
            complaints.append(f"{file.parent}: {error}")
    return runs, complaints


@functools.cache
def recipe_config(recipe: Recipe, batch: int | None = None) -> DictConfig:
    """A recipe's config, at another batch where one is given."""
    changes = [*recipe.changes, *([f"{BATCH}={batch}"] if batch else [])]
    return load_config(str(ROOT / "configs" / f"{recipe.config}.py"), changes)


def settings(cfg: DictConfig) -> dict[str, Any]:
    """What decides the outcome of a run, by dotted key; what refers to another key as it does."""
    found = dict(_leaves(OmegaConf.to_container(cfg, resolve=False), ""))
    if not found.get("dataloader.train.unlabeled_per_batch"):
        found = {k: v for k, v in found.items() if not k.startswith("dataloader.train.unlabeled")}
    if not found.get("train.amp.enabled"):
        found.pop("train.amp.dtype", None)
    start = found.get("train.init_checkpoint") or ""
    found["train.init_checkpoint"] = start.rpartition("/")[2]  # a copy is as good as the address
    return {key: value for key, value in found.items() if not NO_MATTER.fullmatch(key)}


@functools.cache
def recipe_settings(recipe: Recipe, batch: int | None) -> dict[str, Any]:
    """What decides the outcome of a recipe at that batch."""
    return settings(recipe_config(recipe, batch))


def _leaves(node: Any, path: str) -> Iterable[tuple[str, Any]]:
    if isinstance(node, dict | list | tuple):
        items = node.items() if isinstance(node, dict) else enumerate(node)
        for key, value in items:
            yield from _leaves(value, f"{path}.{key}" if path else str(key))
        return
    # A saved config names what the config file holds.
    yield path, locate(node) if path.endswith("_target_") and isinstance(node, str) else node


def differences(run: Found, recipe: Recipe) -> list[str]:
    """Phrases about what a run has otherwise than a recipe; none: it is a run of it."""
    here, there = run.settings, recipe_settings(recipe, run.batch)
    phrases = []
    for key in sorted(here.keys() | there.keys()):
        mine, theirs = (_word(values.get(key, "unset")) for values in (here, there))
        if mine != theirs:
            phrases.append(f"{key} is {mine}, not {theirs}")
    return phrases


def _word(value: Any) -> str:
    return f"{value.__module__}.{value.__qualname__}" if callable(value) else f"{value}"


class Results:
    """Which runs there are of which recipe.

    Args:
        runs: all that were found.
        recipes: of all cells.
    """

    def __init__(self, runs: Iterable[Found], recipes: Iterable[Recipe]):
        recipes = list(recipes)
        self.finished: dict[Recipe, list[Found]] = {recipe: [] for recipe in recipes}
        self.begun: dict[Recipe, list[Found]] = {recipe: [] for recipe in recipes}
        self.others: list[str] = []
        self.runs = {run.folder.resolve(): run for run in runs}
        for run in self.runs.values():
            gaps = {
                recipe: [*differences(run, recipe), *self._teacher(run, recipe)]
                for recipe in recipes
            }
            nearest = min(gaps, key=lambda recipe: len(gaps[recipe]))
            if not gaps[nearest]:
                (self.begun if run.results is None else self.finished)[nearest].append(run)
            elif len(gaps[nearest]) <= MANY and run.results:
                first, more = gaps[nearest][:3], len(gaps[nearest]) - 3
                rest = f", and {more} more" if more > 0 else ""
                self.others.append(
                    f"{run.folder}: AP {run.results[METRICS[0]]:.1f}, not configs/{nearest.config}"
                    f".py: {'; '.join(first)}{rest}"
                )

    def _teacher(self, run: Found, recipe: Recipe) -> list[str]:
        """What is wrong with the run that a run's teacher came from, if it is one of these."""
        file = OmegaConf.select(run.cfg, "model.teacher.checkpoint")
        source = self.runs.get(Path(file).resolve().parent) if file and recipe.teacher else None
        if source is None or not differences(source, recipe.teacher):
            return []
        return [f"its teacher is of {source.folder}, no run of configs/{recipe.teacher.config}.py"]

    def mean(self, recipe: Recipe | None, metric: str = METRICS[0]) -> float | None:
        """Over the finished runs of a recipe; None without any."""
        values = [run.results[metric] for run in self.finished.get(recipe, [])]
        return statistics.mean(values) if values else None


def main_table(results: Results) -> str:
    """The paper's main table."""
    rows = [["student", "teacher", "epochs", "alone", "KD-DETR", "gain", "teacher AP"]]
    for line in LINES:
        alone, pair = results.mean(line.baseline), results.mean(line.pair)
        teacher = results.mean(line.pair.teacher)
        gain = None if alone is None or pair is None else pair - alone
        rows.append(
            [
                *(line.student, line.teacher, line.epochs),
                *(_cell(line.alone, alone), _cell(line.distilled, pair)),
                *(_cell(line.gain, gain, "+"), _cell(line.teacher_ap, teacher)),
            ]
        )
    return markdown(rows)


def ablation_table(results: Results) -> str:
    """Which points a DAB-DETR R18 is distilled at."""
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
    """A table whose columns line up as plain text too; the first row is its head."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [[cell.ljust(width) for cell, width in zip(row, widths)] for row in rows]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def wanted() -> list[Recipe]:
    """The recipes of all cells, each once, a teacher before its students."""
    found: dict[Recipe, None] = {}
    for line in LINES:
        found |= dict.fromkeys((line.pair.teacher, line.baseline, line.pair))
    return list(found | dict.fromkeys(point.recipe for point in ABLATION))


def commands(results: Results, output: Path) -> list[str]:
    """What to run for the recipes without a finished run, in an order in which it works."""
    empty = [recipe for recipe, runs in results.finished.items() if not runs]
    return [command(recipe, results, output) for recipe in empty]


def command(recipe: Recipe, results: Results, output: Path) -> str:
    """The command of one recipe: into a free folder, or going on with what was begun."""
    words = ["python", "train_net.py", "--config-file"]
    folder, gpus = place(recipe, results, output), ["--num-gpus", str(recipe.gpus)]
    if results.begun[recipe]:
        # With its own config, whatever its seed and batch.
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
    """Where a recipe's run is, or will be by its command: not where another run is."""
    for run in (*results.finished[recipe], *results.begun[recipe]):
        return run.folder
    folder, number = output / recipe.folder, 2
    while folder.resolve() in results.runs:
        folder, number = output / f"{recipe.folder}_{number}", number + 1
    return folder


def report(output: Path) -> str:
    """All that the program prints."""
    runs, complaints = find_runs(output)
    results = Results(runs, wanted())
    parts = [
        "COCO val2017 AP, paper / here (-: none). Paper: KD-DETR, CVPR 2024, arXiv 2211.08071 v3.",
        main_table(results),
        FASTER_RCNN,
        "Which points, DAB-DETR R18 from DAB-DETR R50:",
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
            " published loss is\na sum over the images of a process: to distil with another"
            f" --num-gpus say\n{BATCH}=(8 x that); iterations and learning rates follow."
        )
        parts.append("\n".join(todo))
    return "\n\n".join(parts)


def main() -> None:
    """Parse the command line, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--output", type=Path, default=Path("output"), help="where the runs are (default: output)"
    )
    output = parser.parse_args().output
    if not output.is_dir():
        print(f"There is no folder {output}, so no runs are counted.\n")
    print(report(output))


if __name__ == "__main__":
    with one_sentence():
        main()
