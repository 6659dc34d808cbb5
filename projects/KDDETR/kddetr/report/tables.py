"""The tables of a run's page: results, and AP of each class."""

import math
from collections.abc import Mapping
from typing import Any

from .comparison import spread
from .findings import Findings
from .grouping import Group
from .sample import Asked, Sample

COLUMNS = ("AP", "AP50", "AP75", "APs", "APm", "APl")
SHOWN_CLASSES = 20  # above twice this number, those with the largest changes come first
PER_CLASS = "AP-"


def figure(value: float, spec: str = ".1f") -> str:
    """A number as text, a dash where there is none."""
    return format(value, spec) if math.isfinite(value) else "–"


def results_table(found: Findings) -> dict[str, Any]:
    """Teacher, student alone and this run: their AP, parameters and time of an image."""
    run, sample = found.run, found.sample
    # Without an object of a size, there is no AP for it.
    columns = [name for name in COLUMNS if math.isfinite(run.results.get(name, math.nan))]
    if run.value_name not in columns and run.results:
        columns.insert(0, run.value_name)
    heads = ["", *columns, "parameters", "ms per image"]
    rows = []
    asked = dict(sample.asked) if sample else {}
    own = asked.get("student") or asked.get("detector")
    part = f"on {len(sample.records):,} of {sample.total:,} images" if sample else ""
    if sample and "teacher" in asked:
        teacher = asked["teacher"]
        note = "" if sample.is_whole else part
        rows.append(_row("teacher", note, columns, teacher.results, teacher))
    if sample and "teacher" in asked and own and not sample.is_whole:
        rows.append(_row("this run", part, columns, own.results, None))
    if found.partners:
        alone = found.partners.alone
        note = f"seed {alone.seed}{_mean_note(found.partners.difference.baseline)}"
        row = _row("student alone", note, columns, alone.results, None)
        if own:  # it is the same detector
            row["cells"][-2]["text"] = count_of(own.parameters)
        rows.append(row)
    if run.averaged:
        rows.append(_row("averaged weights", "model_ema.pth", columns, run.averaged, None))
    title = "student, distilled" if run.is_distilled else "this run"
    note = f"seed {run.seed}, after {run.evaluations[-1].iteration:,} iterations"
    if found.partners:
        note += _mean_note(found.partners.difference.group)
    rows.append(_row(title, note, columns, run.results, own) | {"main": True})
    return {"heads": heads, "rows": rows}


def _mean_note(group: Group) -> str:
    """The mean of a group of several runs, as the end of a note."""
    if len(group.runs) < 2:
        return ""
    metric = group.runs[0].value_name
    return f"; {metric} of {len(group.runs)} seeds {spread(list(group.values.values()))}"


def _row(
    name: str, note: str, columns: list[str], results: Mapping[str, float], asked: Asked | None
) -> dict[str, Any]:
    cells = [{"text": figure(results.get(column, math.nan)), "note": ""} for column in columns]
    size, time, span = "", "", ""
    if asked:
        middle, low, high = asked.milliseconds
        size, time, span = count_of(asked.parameters), f"{middle:.1f}", f"{low:.1f} to {high:.1f}"
    cells += [{"text": size, "note": ""}, {"text": time, "note": span}]
    return {"name": name, "note": note, "cells": cells, "main": False}


def count_of(parameters: int) -> str:
    """A number of parameters in words: 41.2 M."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if parameters >= size:
            return f"{parameters / size:.3g} {unit}"
    return str(parameters)


def class_table(found: Findings) -> dict[str, Any] | None:
    """AP of each class, its change against the student alone, and the teacher's; None for a single
    class.
    """
    run, sample = found.run, found.sample
    own = _by_class(run.results)
    if len(own) < 2:
        return None
    alone = _by_class(found.partners.alone.results) if found.partners else {}
    asked = sample.asked.get("teacher") if sample else None
    teacher = _by_class(asked.results) if asked else {}
    rows = [_class_row(name, own[name], alone, teacher, sample) for name in own]
    by_change = bool(alone)
    rows.sort(key=lambda row: -row["change"] if math.isfinite(row["change"]) else math.inf)
    heads = [*(["objects"] if sample else []), "this run"]
    heads += [*(["alone", "change"] if alone else []), *(["teacher"] if teacher else [])]
    first, rest = rows, []
    if len(rows) > 2 * SHOWN_CLASSES:
        known = [row for row in rows if math.isfinite(row["change"])]
        half = SHOWN_CLASSES // 2
        first = [*known[:half], *known[half:][-half:]]
        rest = [row for row in rows if not any(row is one for one in first)]
    note = "The bar is this run."
    if alone:
        seed = found.partners.alone.seed
        same = "the same" if seed == run.seed else f"another seed, {seed}"
        note += (
            f" The blue mark is the student alone, with {same}{' seed' if same[0] == 't' else ''}."
        )
    if teacher:
        where = (
            "" if sample.is_whole else f", on {len(sample.records):,} of {sample.total:,} images"
        )
        note += f" The dark line is the teacher{where}."
    if rest:
        kind = "changes" if by_change else "values"
        note += f" The {len(first)} classes with the largest and smallest {kind} come first."
    note += " A class with few objects has an AP that says little."
    return {"note": note, "heads": heads, "first": first, "rest": rest}


def _by_class(results: Mapping[str, float]) -> dict[str, float]:
    return {k.removeprefix(PER_CLASS): v for k, v in results.items() if k.startswith(PER_CLASS)}


def _class_row(
    name: str,
    value: float,
    alone: Mapping[str, float],
    teacher: Mapping[str, float],
    sample: Sample | None,
) -> dict[str, Any]:
    cells = []
    if sample:
        cells.append({"text": f"{sample.objects.get(name, 0):,}", "kind": ""})
    cells.append({"text": figure(value), "kind": ""})
    change = value
    if alone:
        change = value - alone.get(name, math.nan)
        kind = "up" if change > 0 else "down" if change < 0 else ""
        cells.append({"text": figure(alone.get(name, math.nan)), "kind": ""})
        cells.append({"text": figure(change, "+.1f"), "kind": kind})
    if teacher:
        cells.append({"text": figure(teacher.get(name, math.nan)), "kind": ""})
    marks = {
        kind: round(values[name], 1) if math.isfinite(values.get(name, math.nan)) else None
        for kind, values in (("alone", alone), ("teacher", teacher))
    }
    bar = round(value, 1) if math.isfinite(value) else 0
    return {"name": name, "cells": cells, "change": change, "bar": bar, **marks}
