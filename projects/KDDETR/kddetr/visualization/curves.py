"""AP of several runs against iterations and against time, since distilled steps cost more of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from . import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Yellow and mint of the palette are too pale for lines on white.
LINES = tuple(c for c in style.PALETTE if c not in ("#f0e442", "#a6f0c6"))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")
MOST_MARKERS = 16
REFERENCE_DASHES = ((0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))


def ap_curves(
    curves: Mapping[str, Sequence[tuple[float, float, float]]],
    *,
    path: str | Path,
    reference: Mapping[str, float] | None = None,
) -> Path:
    """Draws AP against iterations and, beside it, against time, and writes the picture to ``path``.

    The legend above the panels gives the last AP of each run. Evaluations without a finite AP
    are left out; a run without any other is named in the legend as having none.

    Args:
        curves: name to (iteration, seconds of training, AP in percent) of each evaluation.
        path: the file; its suffix says the format, and missing folders are made.
        reference: name to AP in percent, drawn as horizontal lines, such as the teacher's.

    Returns:
        the path.

    Raises:
        ValueError: no curve at all, or one that is not made of triples.
    """
    runs = [_Run.of(name, curve, i) for i, (name, curve) in enumerate(curves.items())]
    if not runs:
        raise ValueError("AP curves need at least one run.")
    references = dict(reference or {})
    unit, seconds = _time_unit(max((r.seconds.max() for r in runs if len(r.ap)), default=0.0))
    heights = [*references.values(), *(r.ap.max() for r in runs if len(r.ap)), 1.0]
    highest = max(height for height in heights if np.isfinite(height))
    figure, (left, right) = _page(runs, references)
    for axes, label in ((left, "iterations"), (right, f"{unit} of training")):
        _frame(axes, label, highest * 1.07)
        for ap, dashes in zip(references.values(), cycle(REFERENCE_DASHES)):
            axes.axhline(ap, color=style.MUTED, linewidth=1.2, linestyle=dashes, zorder=2)
    for run in runs:
        run.draw(left, run.iterations)
        run.draw(right, run.seconds / seconds)
    for axes in (left, right):
        axes.set_xlim(left=0)
    return style.save(figure, path)


@dataclass(frozen=True)
class _Run:
    """One curve: (E,) arrays of its evaluations, and its place among the runs."""

    name: str
    iterations: np.ndarray
    seconds: np.ndarray
    ap: np.ndarray
    index: int

    @classmethod
    def of(cls, name: str, curve: Sequence, index: int) -> _Run:
        values = np.array(curve, dtype=float) if len(curve) else np.zeros((0, 3))
        if values.ndim != 2 or values.shape[1] != 3:
            raise ValueError(f"Curve {name!r} must be a list of (iteration, seconds, AP).")
        values = values[np.isfinite(values[:, 2])]
        return cls(name, *values[np.argsort(values[:, 0], kind="stable")].T, index)

    @property
    def look(self) -> dict:
        again, colour = divmod(self.index, len(LINES))
        return {
            "color": LINES[colour],
            "marker": MARKERS[colour],
            "linestyle": "--" if again else "-",
            "markersize": 5.0,
            "markeredgecolor": "white",
            "markeredgewidth": 0.5,
            "linewidth": 1.7,
        }

    def draw(self, axes: Axes, x: np.ndarray) -> None:
        every = -(-len(x) // MOST_MARKERS) or 1
        axes.plot(x, self.ap, zorder=3, markevery=every, **self.look)

    @property
    def label(self) -> str:
        return f"{self.name}: {self.ap[-1]:.1f}" if len(self.ap) else f"{self.name}: no AP"


def _time_unit(longest: float) -> tuple[str, float]:
    """The unit in which that many seconds read well, and its length in seconds."""
    if longest <= 1200:
        return "seconds", 1.0
    return ("minutes", 60.0) if longest <= 3 * 3600 else ("hours", 3600.0)


def _page(
    runs: Sequence[_Run], references: Mapping[str, float]
) -> tuple[Figure, tuple[Axes, Axes]]:
    """The figure with its legend on top, in as many rows as it takes, and two axes below it."""
    from matplotlib.lines import Line2D

    lines = [
        Line2D(
            [], [], color=style.MUTED, linewidth=1.2, linestyle=dashes, label=f"{name}: {ap:.1f}"
        )
        for (name, ap), dashes in zip(references.items(), cycle(REFERENCE_DASHES))
    ]
    lines += [Line2D([], [], label=run.label, **run.look) for run in runs]
    draft = style.new_figure(style.PAGE_WIDTH, 1)
    widest = max(style.text_size(draft, line.get_label(), style.TEXT_SIZE)[0] for line in lines)
    columns = max(min(int((style.PAGE_WIDTH - 0.4) / (widest + 0.65)), len(lines)), 1)
    rows = -(-len(lines) // columns)
    height = 3.75 + 0.2 * rows
    figure = style.new_figure(style.PAGE_WIDTH, height)
    figure.legend(
        handles=lines,
        loc="upper center",
        ncols=columns,
        frameon=False,
        bbox_to_anchor=(0.5, 1 - 0.05 / height),
        borderpad=0,
        handlelength=2.8,
        fontsize=style.TEXT_SIZE,
        labelcolor=style.INK,
    )
    left, right = (figure.add_axes((x, 0.5 / height, 0.42, 3.05 / height)) for x in (0.06, 0.55))
    return figure, (left, right)


def _frame(axes: Axes, label: str, highest: float) -> None:
    """Labels, ticks and a quiet grid."""
    axes.set_ylim(0, highest)
    axes.set_xlabel(label, size=style.TEXT_SIZE, color=style.INK)
    axes.set_ylabel("AP (%)", size=style.TEXT_SIZE, color=style.INK)
    axes.tick_params(labelsize=style.TEXT_SIZE, colors=style.INK, length=2.5)
    axes.grid(color=style.GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
