"""Which training each line of an experiment is, and which value a tuned line has."""

import json
from collections.abc import Mapping

from .lines import TRIAL_SEED, Experiment, Line
from .results import Job, Results
from .scales import Scale


def trials(experiment: Experiment, line: Line, scale: Scale) -> dict[float, Job]:
    """The trainings that choose the value of a tuned line, by the value; else none."""
    if not line.tuning:
        return {}
    if line.tuned_like:
        return trials(experiment, experiment.line(line.tuned_like), scale)
    half = max(scale.iterations(experiment, line) // 2, 1)
    return {
        value: Job(line.config, (*line.overrides, *line.tuning.overrides(value)), TRIAL_SEED, half)
        for value in scale.values(line.tuning)
    }


def chosen_value(
    experiment: Experiment, line: Line, scale: Scale, results: Results
) -> float | None:
    """The tried value with the best AP on the validation images; None while one is missing."""
    found = {value: results.get(job) for value, job in trials(experiment, line, scale).items()}
    if not found or not all(found.values()):
        return None
    return max(found, key=lambda value: found[value]["val_AP"])  # type: ignore[index]


def job_of_line(
    experiment: Experiment,
    line: Line,
    seed: int,
    scale: Scale,
    results: Results,
    costs: Mapping[str, float] | None = None,
) -> Job | None:
    """The training of a line with a seed; None while the value of a tuned line is not known.

    Args:
        costs: CPU seconds of a step of each line. Without them a line of equal time has 0
            iterations, which is enough to find its result.
    """
    overrides, iterations = line.overrides, scale.iterations(experiment, line)
    if line.tuning:
        value = chosen_value(experiment, line, scale, results)
        if value is None:
            return None
        overrides = (*overrides, *line.tuning.overrides(value))
    if not line.same_time_as:
        return Job(line.config, overrides, seed, iterations)
    other = experiment.line(line.same_time_as)
    length = scale.iterations(experiment, other)
    time = json.dumps([other.config, other.overrides, length])
    iterations = 0
    if costs:
        mine, theirs = (costs[timed_line(experiment, x)] for x in (line, other))
        iterations = round(length * theirs / mine)
    return Job(line.config, overrides, seed, iterations, time)


def timed_line(experiment: Experiment, line: Line) -> str:
    """The name of the line whose step is measured for this one: the first that is trained alike."""
    alike = (line.config, line.overrides)
    return next(x.name for x in experiment.lines if (x.config, x.overrides) == alike)
