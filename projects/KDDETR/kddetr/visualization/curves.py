"""AP of runs against iterations and time; both, because a distilled iteration takes longer."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path

import numpy as np
from matplotlib import cycler
from matplotlib.figure import Figure

from . import style

# Yellow and mint of the palette are too pale for lines on white.
COLOURS = [c for c in style.PALETTE if c not in ("#f0e442", "#a6f0c6")]
LINES = cycler(linestyle=["-", "--"]) * (cycler(color=COLOURS) + cycler(marker=list("os^DvPX<")))
LOOK = {"markersize": 5, "markeredgecolor": "white", "markeredgewidth": 0.5, "linewidth": 1.7}
MOST_MARKERS = 16  # of one run
REFERENCE_DASHES = ((0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))


@style.page_style
def ap_curves(
    curves: Mapping[str, Sequence[tuple[float, float, float]]],
    *,
    path: str | Path,
    reference: Mapping[str, float] | None = None,
) -> Path:
    """Draws AP against iterations and, beside it, against time; writes and returns ``path``.

    The legend gives the last AP of each run. Evaluations without a finite AP are left out, and a
    run without any finite AP has "no AP" in the legend.

    Args:
        curves: name to (iteration, seconds of training, AP in percent) of each evaluation.
        path: the file; its suffix gives the format, and missing folders are made.
        reference: name to AP in percent, drawn as a horizontal line, such as the teacher's.

    Raises:
        ValueError: there is no run, or a run is not a list of triples.
    """
    if not curves:
        raise ValueError("ap_curves needs at least one run.")
    runs = {name: _as_columns(name, curve) for name, curve in curves.items()}
    references = dict(reference or {})
    unit, length = _time_unit(max(seconds.max(initial=0) for _, seconds, _ in runs.values()))
    figure = Figure((style.PAGE_WIDTH, 4.2), layout="constrained")
    panels = figure.subplots(1, 2)
    for axes, label in zip(panels, ("iterations", f"{unit} of training")):
        axes.set_prop_cycle(LINES)
        lines = []
        for (name, ap), dashes in zip(references.items(), cycle(REFERENCE_DASHES)):
            lines += [axes.axhline(ap, label=f"{name}: {ap:.1f}", color=style.MUTED, ls=dashes)]
        for name, (iterations, seconds, ap) in runs.items():
            x = iterations if axes is panels[0] else seconds / length
            last = f"{ap[-1]:.1f}" if len(ap) else "no AP"
            every = max(-(-len(ap) // MOST_MARKERS), 1)
            lines += axes.plot(x, ap, label=f"{name}: {last}", markevery=every, **LOOK)
        axes.set(xlabel=label, ylabel="AP (%)")
        axes.grid(linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        highest = [*references.values(), *(ap.max(initial=1) for _, _, ap in runs.values())]
        axes.set_ylim(0, 1.07 * np.nanmax(highest))
        axes.set_xlim(left=0)
    columns = style.PAGE_WIDTH // (max(len(line.get_label()) for line in lines) * 0.068 + 0.75)
    figure.legend(
        handles=lines,
        loc="outside upper center",
        ncols=min(max(int(columns), 1), len(lines)),
        frameon=False,
        handlelength=2.8,
    )
    return style.save(figure, path)


def _as_columns(name: str, curve: Sequence) -> np.ndarray:
    """Iterations, seconds and finite APs of a run, in the order of the iterations, (3, E)."""
    values = np.array(curve, dtype=float) if len(curve) else np.zeros((0, 3))
    if values.ndim != 2 or values.shape[1] != 3:
        raise ValueError(f"Curve {name!r} must be a list of (iteration, seconds, AP).")
    values = values[np.isfinite(values[:, 2])]
    return values[np.argsort(values[:, 0], kind="stable")].T


def _time_unit(longest: float) -> tuple[str, float]:
    """The unit in which that many seconds read well, and its length in seconds."""
    if longest <= 1200:
        return "seconds", 1.0
    return ("minutes", 60.0) if longest <= 3 * 3600 else ("hours", 3600.0)
