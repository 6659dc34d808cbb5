"""How long a training step of each line of an experiment takes, measured in turn."""

import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from detectron2.utils.events import EventStorage
from omegaconf import DictConfig

from kddetr.engine import Trainer, load_config

from . import ROOT
from .jobs import timed_line
from .lines import Experiment, Line
from .prepare import prepare
from .scales import Scale

WARM_UP, TIMED_STEPS = 80, 40


def read_costs(file: Path, experiment: Experiment) -> dict[str, float] | None:
    """CPU seconds of a step of each line that was measured; None where none was."""
    if not file.is_file():
        return None
    return json.loads(file.read_text(encoding="utf-8")).get(experiment.name)


def measured_costs(
    file: Path,
    experiment: Experiment,
    scale: Scale,
    say: Callable[[str], None],
    overrides: Callable[[Line], Sequence[str]],
) -> dict[str, float]:
    """Seconds of a training step of each line, the medians of steps that take turns.

    All lines of an experiment are measured at once, so that their ratios hold, and kept in
    ``file``, so that a program that is started again trains for the same number of iterations.

    Args:
        overrides: all overrides of a line at this scale.
    """
    if costs := read_costs(file, experiment):
        return costs
    names = dict.fromkeys(timed_line(experiment, line) for line in experiment.lines)
    say(f"{experiment.name}: measuring the step of {len(names)} lines, which take turns")
    configs = {}
    for name in names:
        line = experiment.line(name)
        prepare(line, scale, say)
        folder = f"train.output_dir={scale.output}/timing/{experiment.name}/{name}"
        configs[name] = load_config(str(ROOT / line.config), [*overrides(line), folder])
    steps = (2, 1) if scale.longest < WARM_UP else (WARM_UP, TIMED_STEPS)
    costs = step_seconds(configs, *steps)
    before = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    file.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(before | {experiment.name: costs}, indent=2) + "\n"
    file.write_text(text, encoding="utf-8")
    return costs


def step_seconds(
    configs: Mapping[str, DictConfig], warm_up: int = WARM_UP, timed: int = TIMED_STEPS
) -> dict[str, float]:
    """The median seconds of a step of each config, on one thread of this process.

    Without a GPU it is CPU time, which does not count what other programs do. The first steps do
    not count either: in them a teacher that keeps what it has computed meets the labelled images.
    """
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    trainers = {name: Trainer(cfg) for name, cfg in configs.items()}
    seconds: dict[str, list[float]] = {name: [] for name in trainers}
    with EventStorage() as storage:
        for step in range(warm_up + timed):
            for name, trainer in trainers.items():
                trainer.iter = storage.iter = step
                trainer.model.train()
                started = clock()
                trainer.run_step()
                seconds[name].append(clock() - started)
    return {name: statistics.median(found[warm_up:]) for name, found in seconds.items()}
