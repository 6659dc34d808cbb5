"""The tables of the experiments, made from the file of results."""

import statistics
from collections.abc import Mapping, Sequence

from comparison import markdown, spread
from kddetr.report.intervals import interval, with_interval

from .jobs import chosen_value, job_of_line, timed_line, trials
from .lines import Experiment, Line
from .results import Result, Results
from .scales import CPU, Scale

MOST_SEEDS = 20
HEADS = {"step": "time of a step, relative to the first row"}
Rows = dict[str, dict[int, Result]]  # the results of each line by the seed
Costs = Mapping[str, Mapping[str, float]]  # CPU seconds of a step by experiment and line


def rows_of(experiment: Experiment, results: Results, scale: Scale = CPU) -> Rows:
    """The results of the lines that have any, by name and seed."""
    found: Rows = {}
    for line in experiment.lines:
        for seed in range(MOST_SEEDS):
            job = job_of_line(experiment, line, seed, scale, results)
            if job and (result := results.get(job)):
                found.setdefault(line.name, {})[seed] = result
    return found


def difference(
    ours: Mapping[int, Result], theirs: Mapping[int, Result], metric: str
) -> list[float]:
    """How much more the first line has than the second, for each seed that both have."""
    return [ours[seed][metric] - theirs[seed][metric] for seed in ours if seed in theirs]


def table(
    experiment: Experiment, results: Results, costs: Costs | None = None, scale: Scale = CPU
) -> str:
    """The Markdown table of an experiment; empty where nothing has been measured."""
    rows = rows_of(experiment, results, scale)
    if not rows:
        return ""
    metric = main_metric(experiment)
    heads = [*experiment.heads, *(head(column, experiment) for column in experiment.columns)]
    for name in experiment.baselines:
        title = experiment.line(name).title
        heads.append(f"difference to {title if isinstance(title, str) else name}")
    lines = [heads]
    for name, mine in rows.items():
        line = experiment.line(name)
        title = [line.title] if isinstance(line.title, str) else [*line.title]
        cells = [
            cell(column, experiment, line, list(mine.values()), results, costs or {}, scale)
            for column in experiment.columns
        ]
        for baseline in experiment.baselines:
            same = name == baseline or baseline not in rows
            cells.append("" if same else with_interval(difference(mine, rows[baseline], metric)))
        lines.append([*title, *cells])
    return markdown(lines)


def correction(experiment: Experiment, results: Results, scale: Scale = CPU) -> str:
    """A sentence about the differences of a table whose intervals are without 0, but not where all
    lines of their column are counted (Bonferroni's correction); empty where there is no table.
    """
    rows = rows_of(experiment, results, scale)
    metric, tests = main_metric(experiment), len(rows) - 1
    lost = []
    for baseline in (name for name in experiment.baselines if name in rows):
        for name in rows:
            values = difference(rows[name], rows[baseline], metric)
            if name == baseline or len(values) < 2 or _contains_0(interval(values)):
                continue
            if _contains_0(interval(values, tests=tests)):
                titles = (experiment.line(one).title for one in (name, baseline))
                lost.append("*{}* to *{}*".format(*titles))
    if not rows:
        return ""
    found = f"these are no longer told from 0: {'; '.join(lost)}" if lost else "none is lost"
    return f"With Bonferroni's correction for the {tests} differences of a column, {found}."


def _contains_0(found: tuple[float, float]) -> bool:
    return found[0] <= 0 <= found[1]


def main_metric(experiment: Experiment) -> str:
    """The metric whose differences are shown: the first AP of the table."""
    return next(column for column in experiment.columns if column.endswith("AP"))


def head(column: str, experiment: Experiment) -> str:
    """The head of a column of figures."""
    if column == "tuned":
        return next(line.tuning.title for line in experiment.lines if line.tuning)
    return HEADS.get(column, column.removeprefix("val_"))


def cell(
    column: str,
    experiment: Experiment,
    line: Line,
    mine: Sequence[Result],
    results: Results,
    costs: Costs,
    scale: Scale,
) -> str:
    """One figure of a line, as text: the mean and the standard deviation over its seeds."""
    if column == "seeds":
        return str(len(mine))
    if column == "iterations":
        return f"{statistics.mean(result['iterations'] for result in mine):,.0f}"
    if column == "tuned":
        return tuned(experiment, line, results, scale)
    if column == "step":
        measured = costs.get(experiment.name, {})
        names = [timed_line(experiment, one) for one in (line, experiment.lines[0])]
        if not all(name in measured for name in names):
            return ""
        return f"{measured[names[0]] / measured[names[1]]:.2f} x"
    values = [result[column] for result in mine if result[column] is not None]
    return spread(values) if values else ""


def tuned(experiment: Experiment, line: Line, results: Results, scale: Scale) -> str:
    """The chosen value of a tuned line. A better one may lie beyond the values that were tried,
    which is said where the first or the last of them was chosen.
    """
    value = chosen_value(experiment, line, scale, results)
    if value is None:
        return ""
    tried = trials(experiment, line, scale)
    ends = {min(tried): "smallest", max(tried): "largest"}
    return f"{value:g} ({ends[value]} tried)" if value in ends else f"{value:g}"
