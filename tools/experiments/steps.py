"""How long a training step of each line of an experiment takes, measured in turn."""

import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from detectron2.utils.events import EventStorage
from omegaconf import DictConfig

from kddetr.data.loader import TrainLoader
from kddetr.engine import Trainer, load_config

from . import ROOT
from .jobs import timed_line
from .lines import Experiment, Line
from .prepare import prepare
from .results import locked, replace_text
from .scales import Scale

WARM_UP, TIMED_STEPS = 5, 40


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
    """Seconds of a training step of each line, see :func:`step_seconds`.

    All lines of an experiment are measured at once, so that their ratios hold, and kept in
    ``file``, so that a program that is started again trains for the same number of iterations.

    Args:
        overrides: all overrides of a line at this scale.
    """
    if costs := read_costs(file, experiment):
        return costs
    names = dict.fromkeys(timed_line(experiment, line) for line in experiment.lines)
    say(f"{experiment.name}: measuring the step of {len(names)} lines, which take turns")
    configs, lengths = {}, {}
    for name in names:
        line = experiment.line(name)
        prepare(line, scale, say)
        folder = f"train.output_dir={scale.output}/timing/{experiment.name}/{name}"
        configs[name] = load_config(str(ROOT / line.config), [*overrides(line), folder])
        lengths[name] = scale.iterations(experiment, line)
    steps = (0, 1) if scale.longest < WARM_UP else (WARM_UP, TIMED_STEPS)
    costs = step_seconds(configs, lengths, *steps)
    with locked(file.parent):
        before = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        replace_text(file, json.dumps(before | {experiment.name: costs}, indent=2) + "\n")
    return costs


def step_seconds(
    configs: Mapping[str, DictConfig],
    iterations: Mapping[str, int],
    warm_up: int = WARM_UP,
    timed: int = TIMED_STEPS,
) -> dict[str, float]:
    """The seconds of a step of each config, on one thread of this process.

    A step with images that the run has not met before may take longer: a teacher that keeps what it
    has computed encodes them. So the steps of a first epoch, in which all images are new, and those
    of later epochs are timed apart. The result is the mean of the two medians, weighted by the
    share of the images of a whole run that are new. Without a GPU it is CPU time, which does not
    count what other programs do.

    Args:
        iterations: of the run of each config.
        warm_up: steps of the first epoch that do not count, where it has more.
        timed: steps of each kind, where the first epoch has as many.
    """
    trainers = {name: Trainer(cfg) for name, cfg in configs.items()}
    shares = {name: new_share(one.data_loader, iterations[name]) for name, one in trainers.items()}
    # The configs take turns, so all have a first epoch of as many steps.
    new = min(warm_up + timed, *(_steps_of_epoch(one.data_loader) for one in trainers.values()))
    for trainer in trainers.values():
        _shorten(trainer.data_loader, new)
    seconds: dict[str, list[float]] = {name: [] for name in trainers}
    with EventStorage() as storage:
        for step in range(new + timed):
            for name, trainer in trainers.items():
                trainer.iter = storage.iter = step
                trainer.model.train()
                started = now()
                trainer.run_step()
                seconds[name].append(now() - started)
    first = min(warm_up, new - 1)
    return {
        name: shares[name] * statistics.median(found[first:new])
        + (1 - shares[name]) * statistics.median(found[new:])
        for name, found in seconds.items()
    }


def needs_idle_machine() -> bool:
    """Whether the clock also counts what other programs do meanwhile, see :func:`now`."""
    return torch.cuda.is_available()


def now() -> float:
    """Seconds of a clock: CPU time or, with a GPU, the time when the GPU has done its work."""
    if not needs_idle_machine():
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def new_share(loader: TrainLoader, iterations: int) -> float:
    """Which share of the images of a run of this length the run has not met before."""
    new = sum(min(len(s.records), iterations * s.per_batch) for s in loader.streams)
    return new / (iterations * loader.total_batch_size)


def _steps_of_epoch(loader: TrainLoader) -> int:
    """Steps until an image may be met again, at least 1."""
    return max(1, min(len(s.records) // s.per_batch for s in loader.streams))


def _shorten(loader: TrainLoader, steps: int) -> None:
    """Leave as many images as these steps take, so that an epoch has as many."""
    loader.streams = [
        replace(s, records=[s.records[i] for i in range(min(steps * s.per_batch, len(s.records)))])
        for s in loader.streams
    ]
