"""The page that compares runs: what may be claimed first, then groups, pairs, curves, settings."""

import math
import statistics
from typing import Any

from .charts import interval_chart, line_chart
from .comparison import Comparison, spread
from .grouping import is_of_distillation
from .rendering import as_text, render
from .run_page import ap_series
from .tables import figure


def compare_page(comparison: Comparison) -> str:
    """The page as HTML text."""
    claims = [{"text": one.claim, "kind": one.kind} for one in comparison.differences]
    runs = [run for group in comparison.groups for run in group.runs]
    count = len(comparison.groups)
    values = {
        "title": f"Comparison of {len(runs)} runs",
        "claims": claims,
        "lead": f"{len(runs)} runs in {count} group{'s' if count > 1 else ''}.",
        "tiles": [],
        "differences": _differences(comparison),
        "groups": _groups(comparison),
        "remarks": comparison.notes,
        "pairs": _pairs(comparison),
        "curves": _curves(comparison),
        "settings": _settings(comparison),
        "runs": [
            (str(run.folder), group.name, str(run.seed))
            for group in comparison.groups
            for run in group.runs
        ],
        "footer": "Made by kddetr. Everything on this page is in this one file.",
    }
    return render("compare.html", values)


def _differences(comparison: Comparison) -> dict[str, str]:
    rows = [
        (f"{one.group.name} – {one.baseline.name}", one.mean, one.bounds, [*one.values.values()])
        for one in comparison.differences
        if one.values
    ]
    label = f"difference in {comparison.metric}"
    svg = interval_chart(rows, title=label, x_label=label)
    note = "Diamond: the mean over the pairs; dots: each pair; bar: 95 % interval of the mean."
    return {"svg": svg, "title": "", "note": note}


def _groups(comparison: Comparison) -> dict[str, Any]:
    texts = {one.group.name: one for one in comparison.differences}
    heads = ["", "runs", comparison.metric, "best", "difference", "iterations", "training time"]
    rows = []
    for group in comparison.groups:
        one = texts.get(group.name)
        best = [run.best.value for run in group.runs if run.best]
        seconds = [run.seconds for run in group.runs]
        cells = [
            (str(len(group.runs)), ""),
            (spread(list(group.values.values())), ""),
            (spread(best), ""),
            (one.text or "–", f"to {one.baseline.name}") if one else ("", ""),
            (f"{group.runs[0].length:,}", ""),
            (duration(statistics.mean(seconds)), ""),
        ]
        rows.append(
            {
                "name": group.name,
                "note": "",
                "main": False,
                "cells": [{"text": text, "note": note} for text, note in cells],
            }
        )
    return {"heads": heads, "rows": rows}


def duration(seconds: float) -> str:
    """Seconds in words: ``2 h 5 min``; a dash where they are not known."""
    if not math.isfinite(seconds):
        return "–"
    minutes = round(seconds / 60)
    if seconds < 600:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def _pairs(comparison: Comparison) -> dict[str, Any]:
    seeds = sorted({seed for group in comparison.groups for seed in group.values})
    heads = ["seed", *(group.name for group in comparison.groups)]
    heads += [f"{one.group.name} – {one.baseline.name}" for one in comparison.differences]
    rows = []
    for seed in seeds:
        texts = [figure(group.values.get(seed, math.nan)) for group in comparison.groups]
        texts += [figure(one.values.get(seed, math.nan), "+.1f") for one in comparison.differences]
        cells = [{"text": text, "note": ""} for text in texts]
        rows.append({"name": str(seed), "note": "", "main": False, "cells": cells})
    return {"heads": heads, "rows": rows}


def _curves(comparison: Comparison) -> list[dict[str, str]]:
    series = []
    for i, group in enumerate(comparison.groups):
        for j, run in enumerate(group.runs):
            series.append(ap_series(run, "" if j else group.name, i, faded=j > 0))
    title = f"{comparison.metric} over iterations"
    svg = line_chart(series, title=title, y_label=f"{comparison.metric} (%)")
    return [{"title": title, "note": "one line for each run", "svg": svg}] if svg else []


def _settings(comparison: Comparison) -> dict[str, Any]:
    """What differs: outside of the distillation, and between the distilled groups."""
    keys = sorted({key for group in comparison.groups for key in group.settings})
    distilled = [group for group in comparison.groups if group.is_distilled]
    rows, distillation = [], []
    for key in keys:
        row = (key, *(as_text(group.settings[key]) for group in comparison.groups))
        same = len({as_text(group.settings[key]) for group in distilled}) < 2
        (distillation if is_of_distillation(key) and same else rows).append(row)
    heads = ["key", *(group.name for group in comparison.groups)]
    return {"heads": heads, "rows": rows, "distillation": distillation}
