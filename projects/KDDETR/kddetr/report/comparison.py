"""The comparison of runs: pairs of the same seed, their differences, and what may be claimed."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..errors import UsageError
from .grouping import Group, group_runs
from .intervals import interval, pairs_needed, with_interval
from .run import Run

FORMULA = (
    "The number of pairs is the smallest with which a two-sided paired t test at 5 % finds a true"
    " difference of the measured size and spread with a probability of 80 % (Cohen, Statistical"
    " Power Analysis for the Behavioral Sciences, 1988, chapter 2, by the noncentral t"
    " distribution). From few pairs it is rough."
)
SEVERAL = (
    "Each of these {count} intervals holds the true difference with a probability of 95 %; that all"
    " of them do is less probable, so the largest of several differences deserves some doubt."
)


@dataclass(frozen=True)
class Difference:
    """How much more one group of runs has than another, pair by pair.

    Attributes:
        group, baseline: what is compared, and with what.
        values: the difference of each seed that both have, by seed.
        metric: the short name of the metric.
    """

    group: Group
    baseline: Group
    values: Mapping[int, float]
    metric: str

    @property
    def text(self) -> str:
        """The mean and its 95 % interval, such as ``+3.1 [+1.2, +5.0]``; "" without a pair."""
        return with_interval(list(self.values.values()))

    @property
    def mean(self) -> float:
        """The mean over the pairs; NaN without a pair."""
        return statistics.mean(self.values.values()) if self.values else math.nan

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The 95 % interval of the mean; None with fewer than two pairs."""
        return interval(list(self.values.values())) if len(self.values) > 1 else None

    @property
    def is_shown(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.bounds is not None and not self.bounds[0] <= 0 <= self.bounds[1]

    @property
    def claim(self) -> str:
        """A sentence that says what may be claimed."""
        return self.claim_of(self.group.name, self.baseline.name)

    def claim_of(self, group: str, baseline: str) -> str:
        """The same with other names of the two."""
        if not self.values and set(self.group.values) & set(self.baseline.values):
            return (
                f"{group} and {baseline} have no pair of runs that both have a number for"
                f" {self.metric}, so nothing can be claimed."
            )
        minimized = self.group.runs[0].is_minimized
        values = list(self.values.values())
        return claim(group, baseline, values, self.metric, minimized=minimized)

    @property
    def kind(self) -> str:
        """How the sentence is marked on a page: ``good``, ``bad``, or where nothing is shown
        ``doubt``.
        """
        if not self.is_shown:
            return "doubt"
        return "good" if (self.mean > 0) != self.group.runs[0].is_minimized else "bad"


@dataclass(frozen=True)
class Comparison:
    """Groups of runs beside one another.

    Attributes:
        groups: those that trained alone first.
        differences: of every group but the first to the one that it is compared with.
        notes: sentences about what else is different, and about what is missing.
        metric: the short name of the metric, such as ``AP``.
    """

    groups: tuple[Group, ...]
    differences: tuple[Difference, ...]
    notes: tuple[str, ...]
    metric: str


def claim(
    name: str,
    baseline: str,
    differences: Sequence[float],
    metric: str = "AP",
    *,
    minimized: bool = False,
) -> str:
    """A sentence that says what differences of pairs allow to claim, with the 95 % interval of
    their mean by Student's t distribution; ``minimized``: lower values are better.
    """
    if not differences:
        return (
            f"{name} and {baseline} have no seed in common, so that there are no pairs and nothing"
            " can be claimed: train both with the same seeds."
        )
    mean, count = statistics.mean(differences), len(differences)
    if count == 1:
        return (
            f"{name} has {mean:+.1f} {metric} compared with {baseline} in one pair of runs. One"
            " pair has no interval, so this may be chance: train two or more further seeds of both."
        )
    low, high = interval(differences)
    if low > 0 or high < 0:
        sign = 1 if mean > 0 else -1
        word = "better" if (mean > 0) != minimized else "worse"
        least, most = sorted((sign * low, sign * high))
        return (
            f"{name} is {word} than {baseline} by {abs(mean):.1f} {metric}"
            f" [{least:.1f}, {most:.1f}] over {count} pairs (95 % interval)."
        )
    sentence = (
        f"These {count} pairs do not show a difference between {name} and {baseline}: {mean:+.1f}"
        f" {metric} [{low:+.1f}, {high:+.1f}] (95 % interval)"
    )
    needed = pairs_needed(differences)
    if mean == 0:
        return f"{sentence}."
    if needed is None:
        return f"{sentence}; more than 1,000 pairs would be needed to see one of this size."
    more = max(needed - count, 1)
    plural = "pairs" if more > 1 else "pair"
    return f"{sentence}; about {more} more {plural} would be needed to see one of this size."


def compare_runs(runs: Sequence[Run]) -> Comparison:
    """Compare runs: pair them by their seeds, group by group.

    A distilled student is compared with the group that trained alone and is most like it. All other
    groups are compared with the first one that trained alone, or where all were distilled, with the
    group of the first run.

    Raises:
        UsageError: see :func:`~.grouping.group_runs`, or a run was not evaluated.
    """
    for run in runs:
        if not run.evaluations:
            raise UsageError(
                f"{run.folder} has no evaluation, so there is nothing to compare: name test data in"
                " its config, or leave it out."
            )
    groups = group_runs(runs)
    alone = [group for group in groups if not group.is_distilled] or groups[:1]
    ordered = [*alone, *(group for group in groups if group not in alone)]
    metric = runs[0].value_name
    differences = []
    # What was distilled comes first: that is what most people ask.
    for group in sorted(ordered[1:], key=lambda group: not group.is_distilled):
        # A distilled student is compared with the same student alone where there is one.
        closest = [alone[0]] if group in alone else sorted(alone, key=group.unlike)
        differences.append(Difference(group, closest[0], paired(group, closest[0]), metric))
    return Comparison(tuple(ordered), tuple(differences), _notes(ordered, differences), metric)


def paired(group: Group, baseline: Group) -> dict[int, float]:
    """The difference of each seed that both groups have; a pair without a number is left out."""
    ours, theirs = group.values, baseline.values
    found = {seed: ours[seed] - theirs[seed] for seed in ours if seed in theirs}
    return {seed: value for seed, value in found.items() if math.isfinite(value)}


def _notes(groups: Sequence[Group], differences: Sequence[Difference]) -> tuple[str, ...]:
    notes = []
    for run in (run for group in groups for run in group.runs):
        if not run.is_finished:
            notes.append(
                f"{run.folder} is not finished: its last evaluation is that after"
                f" {run.evaluations[-1].iteration:,} of {run.length:,} iterations."
            )
        if not math.isfinite(run.value):
            notes.append(f"The last evaluation of {run.folder} has no {run.value_name}.")
    lengths = {group.name: group.runs[0].length for group in groups}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name} {length:,}" for name, length in lengths.items())
        notes.append(f"The groups were trained for different numbers of iterations: {listed}.")
    slower = []
    for one in differences:
        ratio = _mean_seconds(one.group) / _mean_seconds(one.baseline)
        if math.isfinite(ratio) and abs(math.log(ratio)) > math.log(1.1):
            slower.append(f"{one.group.name} {ratio:.2g} times that of {one.baseline.name}")
    if slower:
        notes.append(
            f"Training times differ: {'; '.join(slower)}. Where time is what counts, train the"
            " faster one for as long and compare again."
        )
    for group in groups:
        others = [other for other in groups if other is not group]
        known = {seed for other in others for seed in other.values}
        if lone := [str(seed) for seed in group.values if others and seed not in known]:
            notes.append(f"{group.name} has no partner of the seeds {', '.join(lone)}.")
    if len(differences) > 1:
        notes.append(SEVERAL.format(count=len(differences)))
    if any("would be needed" in one.claim for one in differences):
        notes.append(FORMULA)
    return tuple(notes)


def _mean_seconds(group: Group) -> float:
    seconds = [run.seconds for run in group.runs]
    return statistics.mean(seconds) if all(s > 0 for s in seconds) else math.nan


def spread(values: Sequence[float]) -> str:
    """The mean and, of several values, the sample standard deviation, with one decimal."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return "–"
    mean = f"{statistics.mean(finite):.1f}"
    return f"{mean} ± {statistics.stdev(finite):.1f}" if len(finite) > 1 else mean


def comparison_text(comparison: Comparison) -> str:
    """A comparison for a terminal: a table of the groups, one claim a line, and the notes."""
    heads = ["", "runs", comparison.metric, "difference"]
    texts = {one.group.name: one.text for one in comparison.differences}
    rows = [heads]
    for group in comparison.groups:
        values = spread(list(group.values.values()))
        rows.append([group.name, str(len(group.runs)), values, texts.get(group.name, "")])
    widths = [max(len(row[i]) for row in rows) for i in range(len(heads))]
    padded = [[c.ljust(w) for c, w in zip(row, widths, strict=True)] for row in rows]
    lines = ["  ".join(row).rstrip() for row in padded]
    claims = [one.claim for one in comparison.differences] or [_only_group(comparison)]
    return "\n".join([*lines, "", *claims, *(["", *comparison.notes] if comparison.notes else [])])


def _only_group(comparison: Comparison) -> str:
    group = comparison.groups[0]
    if len(group.runs) == 1:
        return "There is one run, so nothing is compared: name the folders of several runs."
    values = spread(list(group.values.values()))
    return (
        f"These {len(group.runs)} runs differ in nothing but their seeds, so nothing is compared:"
        f" {comparison.metric} {values} (mean and standard deviation)."
    )
