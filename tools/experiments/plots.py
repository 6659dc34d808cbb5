"""The plots of docs/evidence.md, drawn from the file of results."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kddetr.report.intervals import interval
from kddetr.visualization import style

from .choices import COUNTS, GENERAL_POINTS, WEIGHT, WEIGHTS
from .labels import LABELS
from .paper import BOTH_FRW, CONSISTENCY, SHARES
from .plan import EXPERIMENTS
from .results import Results
from .scales import Scale
from .tables import Rows, difference, rows_of

MARKER = {"markersize": 5, "capsize": 3, "linewidth": 1.7}
Values = Mapping[float, Sequence[float]]  # a value of each seed at each place of the x-axis


def draw_all(folder: Path, results: Results, scale: Scale) -> list[Path]:
    """Draw every plot of which there are results; returns the files."""
    found = []
    for name, (plot, _) in PLOTS.items():
        if figure := plot(results, scale):
            found.append(style.save(figure, folder / file_name(name, scale)))
    return found


def file_name(name: str, scale: Scale) -> str:
    """The file of a plot at a scale."""
    return f"{name}_{scale.name}.png"


@style.page_style
def consistency(results: Results, scale: Scale) -> Figure | None:
    """AP against the share of points at which teacher and student are asked the same."""
    rows = rows_of(CONSISTENCY, results, scale)
    values = {share: _aps(rows, f"share_{share}") for share in SHARES}
    if not any(values.values()):
        return None
    values[100] = _aps(rows, BOTH_FRW.name)
    figure = Figure((0.6 * style.PAGE_WIDTH, 3.6), layout="constrained")
    axes = figure.subplots()
    _points(axes, values, style.PALETTE[0], "distilled")
    _level(axes, _aps(rows, "alone"), "student alone")
    axes.set(xlabel="points at which teacher and student are asked the same (%)", ylabel="AP (%)")
    _finish(axes)
    return figure


@style.page_style
def choices(results: Results, scale: Scale) -> Figure | None:
    """AP against the number of general points, and against the weight of the distillation."""
    counts = rows_of(GENERAL_POINTS, results, scale)
    weights = rows_of(WEIGHT, results, scale)
    of_other_experiments = {"alone", BOTH_FRW.name}
    if not (counts.keys() | weights.keys()) - of_other_experiments:
        return None
    figure = Figure((style.PAGE_WIDTH, 3.6), layout="constrained")
    panels: tuple[Axes, Axes] = tuple(figure.subplots(1, 2))
    named = {n: f"general_{n}" for n in COUNTS} | {50: BOTH_FRW.name}
    _swept(panels[0], counts, named, "general points (logarithmic)")
    named = {w: f"weight_{w:g}" for w in WEIGHTS} | {1: BOTH_FRW.name}
    _swept(panels[1], weights, named, "weight of the distillation (logarithmic)")
    return figure


@style.page_style
def labels(results: Results, scale: Scale) -> Figure | None:
    """Gain over the student alone against the number of labelled images."""
    known = {e.name: rows_of(e, results, scale) for e in EXPERIMENTS if e.part == "labels"}
    ways = {
        "distilled": "distilled",
        "unlabelled": "distilled, half of each batch unlabelled",
        "alone_longer": "alone, the distilled run's time",
    }
    gains = {
        title: {n: _gains(known[f"labels_{n}"], way) for n in LABELS} for way, title in ways.items()
    }
    if not any(any(values.values()) for values in gains.values()):
        return None
    figure = Figure((0.7 * style.PAGE_WIDTH, 3.8), layout="constrained")
    axes = figure.subplots()
    for i, ((title, values), colour) in enumerate(zip(gains.items(), style.PALETTE)):
        beside = {n * 1.04 ** (i - 1): numbers for n, numbers in values.items()}
        _points(axes, beside, colour, title)
    axes.axhline(0, color=style.MUTED, linewidth=0.8)
    axes.set(xscale="log", xlabel="labelled images", ylabel="gain over the student alone (AP)")
    axes.set_xticks(LABELS, [f"{n:,}" for n in LABELS])
    axes.minorticks_off()
    _finish(axes)
    return figure


def _aps(rows: Rows, name: str) -> list[float]:
    return [result["AP"] for result in rows.get(name, {}).values()]


def _gains(rows: Rows, name: str) -> list[float]:
    return difference(rows.get(name, {}), rows.get("alone", {}), "AP")


def _swept(axes: Axes, rows: Rows, named: Mapping[float, str], label: str) -> None:
    _points(axes, {x: _aps(rows, named[x]) for x in sorted(named)}, style.PALETTE[0], "distilled")
    _level(axes, _aps(rows, "alone"), "student alone")
    axes.set(xscale="log", xlabel=label, ylabel="AP (%)")
    axes.set_xticks(sorted(named), [f"{x:g}" for x in sorted(named)])
    axes.minorticks_off()
    _finish(axes)


def _points(axes: Axes, values: Values, colour: str, label: str) -> None:
    """Means with their 95 % intervals; a single seed has no interval."""
    found = {x: list(numbers) for x, numbers in values.items() if numbers}
    means = [statistics.mean(numbers) for numbers in found.values()]
    halves = [
        interval(numbers)[1] - mean if len(numbers) > 1 else 0.0
        for numbers, mean in zip(found.values(), means, strict=True)
    ]
    axes.errorbar(list(found), means, yerr=halves, fmt="o-", color=colour, label=label, **MARKER)


def _level(axes: Axes, values: Sequence[float], label: str) -> None:
    """A horizontal line at the mean, and a band for its 95 % interval."""
    if not values:
        return
    colour = style.PALETTE[1]
    axes.axhline(statistics.mean(values), color=colour, linestyle="--", label=label)
    if len(values) > 1:
        axes.axhspan(*interval(values), color=colour, alpha=0.15, linewidth=0)


def _finish(axes: Axes) -> None:
    axes.grid(linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)


# The function of each plot, and what it shows.
PLOTS = {
    "consistency": (
        consistency,
        "AP against the share of points at which teacher and student are asked the same",
    ),
    "choices": (
        choices,
        "AP against the number of general points and against the weight of the distillation",
    ),
    "labels": (labels, "Gain over the student alone against the number of labelled images"),
}
