"""Line charts and dot charts as inline SVG, whose colours are those of the page they stand in.

matplotlib draws them with the colours of :data:`COLOURS`, which then become variables of the page's
style sheet, so that one chart is readable on a light and on a dark page.
"""

import io
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.style import context
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from ..visualization import style

INK, MUTED, LINE = "#222222", "#5a5a5a", "#dddddd"
SERIES = tuple(c for c in style.PALETTE if c not in ("#f0e442", "#a6f0c6"))
COLOURS = {INK: "--ink", MUTED: "--muted", LINE: "--line"} | {
    colour: f"--series-{i}" for i, colour in enumerate(SERIES)
}
_SETTINGS = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "kddetr",  # the same chart is the same text
    "font.size": 10.5,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": LINE,
    "axes.linewidth": 1.0,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "ytick.minor.size": 0,
    "grid.color": LINE,
    "text.parse_math": False,
    "lines.linewidth": 2.0,
    "lines.solid_capstyle": "round",
}
_FADED = 0.35  # of the opacity of a series in the background
_WIDE_RANGE = 30  # above which ratio of the values a logarithmic axis is taken
MOST_POINTS = 400  # of a line; more cannot be told apart and make the page heavy


@dataclass(frozen=True)
class Series:
    """One line of a chart.

    Attributes:
        name: in the legend; "" for none.
        x, y: of its points, in the order of x.
        colour: number of a colour of :data:`SERIES`.
        faded: whether it stands in the background.
        dashed: whether the line is dashed.
        marked: whether its points have a dot.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    colour: int = 0
    faded: bool = False
    dashed: bool = False
    marked: bool = False


def line_chart(
    series: Sequence[Series],
    *,
    title: str,
    y_label: str = "",
    x_label: str = "iterations",
    levels: Sequence[tuple[str, float]] = (),
    logarithmic: bool | None = False,
) -> str:
    """A chart of lines as an ``<svg>`` element; "" where there is nothing to draw.

    Args:
        series: those without a point are left out.
        title: what it shows, for those who cannot see it.
        y_label, x_label: of the axes.
        levels: names and heights of horizontal lines, such as the teacher's AP.
        logarithmic: whether the y-axis is; None: where the values are positive and far apart.
    """
    drawn = [one for one in series if len(one.x)]
    if not drawn:
        return ""
    with _figure(6.4, 3.3) as (figure, axes):
        for one in drawn:
            axes.plot(
                *_thinned(one.x, one.y),
                color=SERIES[one.colour % len(SERIES)],
                alpha=_FADED if one.faded else 1.0,
                ls=(0, (4, 2)) if one.dashed else "-",
                marker="o" if len(one.x) == 1 or (one.marked and len(one.x) <= 40) else "",
                markersize=4.5,
                label=one.name or "_",
            )
        for name, height in levels:
            axes.axhline(height, color=INK, lw=1.2, ls=(0, (2, 2)), label=name)
        values = [y for one in drawn for y in one.y] + [height for _, height in levels]
        if logarithmic is None:
            logarithmic = min(values) > 0 and max(values) / min(values) > _WIDE_RANGE
        if logarithmic and min(values) > 0:
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axes.yaxis.set_minor_formatter(NullFormatter())
        elif min(values) >= 0:
            axes.set_ylim(bottom=0, top=1.06 * max(*values, 1e-9))
        axes.set_xlim(left=0)
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.set(xlabel=x_label, ylabel=y_label)
        _legend(figure, axes)
        return _svg(figure, title)


@dataclass(frozen=True)
class Dot:
    """One detector in a chart of AP against latency.

    Attributes:
        name: beside the dot.
        x, y: its place.
        low, high: ends of a horizontal bar through it.
        colour: number of a colour of :data:`SERIES`.
    """

    name: str
    x: float
    y: float
    low: float
    high: float
    colour: int = 0


def dot_chart(dots: Sequence[Dot], *, title: str, x_label: str, y_label: str) -> str:
    """A chart of named dots with the range of each, as an ``<svg>`` element; "" without a dot."""
    drawn = [dot for dot in dots if math.isfinite(dot.x) and math.isfinite(dot.y)]
    if not drawn:
        return ""
    with _figure(6.4, 2.9) as (figure, axes):
        right = max(dot.high for dot in drawn) * 1.35
        for dot in drawn:
            colour = SERIES[dot.colour % len(SERIES)]
            bar = {"color": colour, "alpha": _FADED, "lw": 5, "clip_on": False}
            axes.plot([dot.low, dot.high], [dot.y, dot.y], **bar)
            axes.plot([dot.x], [dot.y], "o", color=colour, markersize=9, clip_on=False)
            is_right = dot.x > 0.6 * right
            axes.annotate(
                dot.name,
                (dot.x, dot.y),
                (-9 if is_right else 9, 9),
                textcoords="offset points",
                ha="right" if is_right else "left",
            )
        axes.set_xlim(0, right)
        axes.set_ylim(0, 1.25 * max(*(dot.y for dot in drawn), 1e-9))
        axes.set(xlabel=x_label, ylabel=y_label)
        return _svg(figure, title)


def interval_chart(
    rows: Sequence[tuple[str, float, tuple[float, float] | None, Sequence[float]]],
    *,
    title: str,
    x_label: str,
) -> str:
    """Differences with their intervals, one below another, as an ``<svg>`` element.

    Args:
        rows: name, mean, 95 % interval if there is one, and the difference of every pair.
        title: what it shows, for those who cannot see it.
        x_label: of the axis.
    """
    if not rows:
        return ""
    names = [style.wrap(row[0], 2.3) for row in rows]
    lines = max(name.count("\n") + 1 for name in names)
    with _figure(6.4, 0.9 + max(0.55, 0.19 * lines) * len(rows)) as (figure, axes):
        axes.axvline(0, color=INK, lw=1.2, ls=(0, (2, 2)))
        for i, (_, mean, bounds, values) in enumerate(rows):
            colour = SERIES[(i + 1) % len(SERIES)]
            if bounds:
                axes.plot(bounds, [i, i], color=colour, lw=6, alpha=_FADED)
            axes.plot(values, [i] * len(values), "o", color=colour, markersize=4, alpha=0.7)
            axes.plot([mean], [i], "D", color=colour, markersize=8)
        axes.set_yticks(range(len(rows)), names)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.grid(visible=False, axis="y")
        axes.set(xlabel=x_label)
        return _svg(figure, title)


@contextmanager
def _figure(width: float, height: float) -> Iterator[tuple[Figure, Axes]]:
    with context(["default", _SETTINGS]):
        figure = Figure((width, height), layout="constrained")
        axes = figure.subplots()
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.grid(linewidth=0.8, axis="y")
        axes.set_axisbelow(True)
        yield figure, axes


def _legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if len(handles) < 2 and not any(handle.get_linestyle() != "-" for handle in handles):
        return
    columns = max(1, min(len(labels), int(80 / (6 + max(map(len, labels))))))
    figure.legend(
        handles, labels, loc="outside upper left", ncols=columns, frameon=False, handlelength=1.6
    )


def _thinned(x: Sequence[float], y: Sequence[float]) -> tuple[list[float], list[float]]:
    """The means of neighbouring points, so that there are at most :data:`MOST_POINTS`."""
    size = -(-len(x) // MOST_POINTS)
    if size == 1:
        return list(x), list(y)
    parts = [slice(i, i + size) for i in range(0, len(x), size)]
    return [x[part][-1] for part in parts], [sum(y[part]) / len(y[part]) for part in parts]


def _svg(figure: Figure, title: str) -> str:
    """The figure as an element of a page, its colours as variables of the style sheet."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", text, flags=re.DOTALL)
    # Several charts on one page would repeat these names, and nothing refers to them.
    text = re.sub(r'<g id="(?!p[0-9a-f]{8})[^"]*">', "<g>", text)
    text = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font: \1 system-ui, sans-serif", text)
    for colour, name in COLOURS.items():
        text = text.replace(colour, f"var({name})")
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    safe = title.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    return text.replace("<svg", f'<svg role="img" aria-label="{safe}"', 1)
