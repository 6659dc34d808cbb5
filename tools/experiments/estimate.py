"""How long a training step will take, from what has been measured so far."""

import statistics
from collections.abc import Callable, Iterable
from pathlib import Path

from .lines import Experiment, Line
from .results import Results
from .steps import read_costs

USUAL = 0.12  # seconds of a step, where none has been measured


def step_estimate(
    experiments: Iterable[Experiment], steps: Path, results: Results
) -> Callable[[Line], float]:
    """A function that gives the seconds of a step of a line.

    They are the CPU seconds that were measured for the line, or else for its config, or else the
    median of all. Only where nothing was measured, they are those of the runs that have ended,
    which count what else the machine did meanwhile.

    Args:
        steps: the file of measured steps.
    """
    exact: dict[tuple, float] = {}
    of_config: dict[str, list[float]] = {}
    for experiment in experiments:
        costs = read_costs(steps, experiment) or {}
        for line in (line for line in experiment.lines if line.name in costs):
            exact[line.config, line.overrides] = costs[line.name]
            of_config.setdefault(line.config, []).append(costs[line.name])
    of_runs: dict[str, list[float]] = {}
    for result in results.all():
        if result["seconds"]:
            each = result["seconds"] / result["iterations"]
            of_runs.setdefault(result["config"], []).append(each)
    usual = _median(of_config) or _median(of_runs) or USUAL

    def seconds(line: Line) -> float:
        if measured := exact.get((line.config, line.overrides)):
            return measured
        known = (of_config or of_runs).get(line.config)
        return statistics.median(known) if known else usual

    return seconds


def _median(known: dict[str, list[float]]) -> float:
    return statistics.median([x for found in known.values() for x in found] or [0.0])
