"""The page of one run: what was gained first, then figures, curves, pictures and settings."""

import math
import re
import statistics
from typing import Any

import yaml
from omegaconf import OmegaConf

from ..engine import train_defaults
from ..engine.config.differences import differences
from ..gap import FIGURES, FOREGROUND
from .charts import Dot, Series, dot_chart, line_chart
from .findings import Findings
from .grouping import comparable, deciding_differences, is_of_distillation
from .intervals import pairs_needed
from .rendering import as_text, flattened, render
from .run import Run, plain
from .sample import SCORE, WARM_UP
from .tables import class_table, count_of, figure, results_table

# Colours of the charts: the student alone, this run, the teacher.
ALONE, OWN, TEACHER = 0, 1, 2
_OF_TEACHERS_MODEL = re.compile(r"distillation\.teacher\..*model\.")


def run_page(found: Findings) -> str:
    """The page as HTML text."""
    run = found.run
    kind = "distilled student" if run.is_distilled else "detector"
    values = {
        "title": f"{run.name}: report of a {kind}",
        "claims": claims(found),
        "lead": _lead(found),
        "tiles": _tiles(found) if run.evaluations else [],
        "results": _results(found),
        "curves": _curves(found),
        "classes": class_table(found),
        "pictures": found.pictures,
        "before": _before(found),
        "settings": _settings(found),
        "measured": _measured(found),
        "footer": f"Made from {run.folder} by kddetr. Everything on this page is in this one file.",
    }
    return render("run.html", values)


def claims(found: Findings) -> list[dict[str, str]]:
    """The sentence that comes first, and how it is marked: good, bad, doubt or plain."""
    run = found.run
    if not run.evaluations:
        text = (
            f"This run was trained for {run.done:,} iterations and was not evaluated, so nothing is"
            " known about its detections."
        )
        return [{"kind": "doubt", "text": text}]
    if found.partners is None:
        what = "The distilled student" if run.is_distilled else "This detector"
        done = run.evaluations[-1].iteration
        if not math.isfinite(run.value):
            text = f"The last evaluation, after {done:,} iterations, has no {run.value_name}."
            return [{"kind": "doubt", "text": text}]
        text = f"{what} has {figure(run.value)} {run.value_name} after {done:,} iterations."
        if run.is_distilled:
            text += " Whether it is better than without a teacher is not known yet."
        return [{"kind": "doubt" if run.is_distilled else "plain", "text": text}]
    one = found.partners.difference
    text = one.claim_of("the distilled student", "the student alone")
    return [{"kind": one.kind, "text": text[:1].upper() + text[1:]}]


def _lead(found: Findings) -> str:
    run, parts = found.run, []
    if run.best and run.best.iteration != run.evaluations[-1].iteration:
        parts.append(
            f"Its best evaluation was {run.best.value:.1f} after {run.best.iteration:,} iterations"
            " (model_best.pth)."
        )
    if run.evaluations and not run.is_finished:
        parts.append(f"The run is not finished: {run.done:,} of {run.length:,} iterations.")
    if run.evaluations and not run.is_minimized:
        parts += _about_teacher(found)
    return " ".join(parts)


def _about_teacher(found: Findings) -> list[str]:
    """What the teacher's AP says. Figures are compared where they are of the same images."""
    teacher, sample = teacher_level(found), found.sample
    if teacher is None:
        return []
    name, value = teacher
    if not sample or "teacher" not in sample.asked:
        return [f"The {name} has {value:.1f}."]
    own, parts = sample.asked["student"].results.get(found.run.value_name, math.nan), []
    if not sample.is_whole:
        parts.append(f"The {name} has {value:.1f}, and this run has {own:.1f} on the same images.")
    elif not found.partners or found.teacher_is_partial:
        parts.append(f"The {name} has {value:.1f}.")
    else:
        difference = found.partners.difference
        start = statistics.mean(difference.baseline.values.values())
        if value - start > 1 and math.isfinite(difference.mean):
            share = 100 * difference.mean / (value - start)
            parts.append(
                f"The teacher has {value:.1f}: the distillation closes {share:.0f} % of the way"
                " from the student alone to it."
            )
    if value <= own and not found.teacher_is_partial:
        parts.append(
            "The teacher is not better than the student, so there is little left to learn from it."
        )
    return parts


def teacher_level(found: Findings) -> tuple[str, float] | None:
    """The teacher's AP, and what it is called; None where it is not known."""
    sample = found.sample
    if sample and "teacher" in sample.asked:
        value = sample.asked["teacher"].results.get(found.run.value_name, math.nan)
        name = "teacher" if sample.is_whole else f"teacher (on {len(sample.records):,} images)"
        return (name, value) if math.isfinite(value) else None
    before = found.preflight.get("teacher")
    value = before.get("AP") if isinstance(before, dict) else None
    if found.run.is_distilled and type(value) in (int, float) and math.isfinite(value):
        return f"teacher (preflight, {before.get('images', 'some')} images)", float(value)
    return None


def _tiles(found: Findings) -> list[dict[str, str]]:
    run, sample = found.run, found.sample
    images = f" on all {sample.total:,} test images" if sample else ""
    tiles = [_tile(run.value_name, figure(run.value), f"the last evaluation,{images}".rstrip(","))]
    if found.partners:
        one = found.partners.difference
        count = len(one.values)
        detail = f"against the student alone, {count} pair{'s' if count != 1 else ''}"
        if one.bounds:
            detail += f", 95 % interval {one.bounds[0]:+.1f} to {one.bounds[1]:+.1f}"
        name = "difference" if run.is_minimized else "gain"
        tiles.append(_tile(name, figure(one.mean, "+.1f"), detail, one.kind))
    if teacher := teacher_level(found):
        tiles.append(_tile(teacher[0], figure(teacher[1]), f"{run.value_name} of the teacher"))
    if sample:
        own = sample.asked.get("student") or sample.asked["detector"]
        teacher = sample.asked.get("teacher")
        ratio = (
            f"the teacher has {count_of(teacher.parameters)}" if teacher else "frozen ones included"
        )
        tiles.append(_tile("parameters", count_of(own.parameters), ratio))
        time = own.milliseconds[0]
        detail = f"median, {sample.device}"
        if teacher:
            detail = f"teacher {teacher.milliseconds[0]:.1f} ms; medians, {sample.device}"
        tiles.append(_tile("time per image", f"{time:.1f} ms", detail))
    return tiles


def _tile(label: str, value: str, detail: str, kind: str = "") -> dict[str, str]:
    return {"label": label, "value": value, "detail": detail, "kind": kind}


def _results(found: Findings) -> dict[str, Any]:
    run, sample = found.run, found.sample
    notes = [*found.remarks, *(found.partners.notes if found.partners else ())]
    if not run.evaluations:
        empty = {"heads": [], "rows": []}
        return {"note": "", "table": empty, "notes": notes, "speed": {"svg": ""}}
    where = f" on {found.test_set}" if found.test_set else ""
    note = f"COCO's metric in percent{where}. "
    if sample and "teacher" in sample.asked and not sample.is_whole:
        note += (
            "The teacher was evaluated on a random part of the test images: compare it with the"
            " row of this run on the same part."
        )
    dots = []
    for name, colour in (("teacher", TEACHER), ("student", OWN), ("detector", OWN)):
        if sample and name in sample.asked:
            one = sample.asked[name]
            middle, low, high = one.milliseconds
            value = one.results.get(run.value_name, math.nan)
            text = f"{name}, {count_of(one.parameters)} parameters"
            dots.append(Dot(text, middle, value, low, high, colour))
    title = f"{run.value_name} against time per image"
    axes = {"x_label": "milliseconds per image, one at a time", "y_label": run.value_name}
    speed = {
        "title": title,
        "svg": dot_chart(dots, title=title, **axes) if len(dots) > 1 else "",
        "note": (
            "Dot: the median; bar: from the fastest tenth of the images to the slowest. Figures of"
            f" another machine differ. Here: {sample.device}, both on the same"
            f" {len(sample.records):,} images."
            if sample
            else ""
        ),
    }
    return {"note": note, "table": results_table(found), "notes": notes, "speed": speed}


def _curves(found: Findings) -> list[dict[str, str]]:
    run = found.run
    charts = [(f"{run.value_name} over iterations", "", _ap_chart(found))]
    groups = [(k.removeprefix("losses/"), *run.series(k)) for k in run.names("losses/")]
    if not groups:
        groups = [("total loss", *run.series("total_loss"))]
    losses = [Series(name, x, y, i) for i, (name, x, y) in enumerate(groups)]
    note = "one line for each group of losses" if len(losses) > 1 else ""
    charts.append(("losses", note, _lines(losses, "losses", None)))
    for one, words in FIGURES.items():
        names = [k for k in run.names("gap_") if k.endswith((f"/{one}", f"/{one}{FOREGROUND}"))]
        lines = []
        for i, name in enumerate(names):
            group, _, which = name.removeprefix("gap_").partition("/")
            weighted = which.endswith(FOREGROUND)
            title = f"{group}, where the teacher sees objects" if weighted else f"{group}, all"
            lines.append(Series(title, *run.series(name), i // 2, dashed=not weighted))
        logarithmic = None if one == "kl" else False
        charts.append((f"gap to the teacher: {one}", words, _lines(lines, one, logarithmic)))
    ratio = Series("", *run.series("gradient_ratio"), OWN)
    note = "gradient of the distillation over that of the student's own losses; 1 is a balance"
    level = [("balance", 1.0)] if len(ratio.x) else []
    svg = line_chart([ratio], title="gradient ratio", levels=level, logarithmic=True)
    charts.append(("gradient ratio", note, svg))
    return [{"title": t, "note": note, "svg": svg} for t, note, svg in charts if svg]


def _lines(series: list[Series], title: str, logarithmic: bool | None) -> str:
    return line_chart(series, title=f"{title} over iterations", logarithmic=logarithmic)


def _ap_chart(found: Findings) -> str:
    run, series = found.run, []
    if found.partners:
        difference = found.partners.difference
        for group, colour, name in (
            (difference.baseline, ALONE, "student alone"),
            (difference.group, OWN, ""),
        ):
            for i, other in enumerate(one for one in group.runs if one is not run):
                title = name if i == 0 else ""
                main = other is found.partners.alone
                series.append(ap_series(other, title, colour, faded=not main))
    series.append(ap_series(run, "this run", OWN))
    teacher = teacher_level(found)
    levels = [(f"{teacher[0]}: {teacher[1]:.1f}", teacher[1])] if teacher else []
    return line_chart(
        series,
        title=f"{run.value_name} over iterations",
        y_label=f"{run.value_name} (%)",
        levels=levels,
    )


def ap_series(run: Run, name: str, colour: int, *, faded: bool = False) -> Series:
    """The main metric of a run over its iterations."""
    finite = [one for one in run.evaluations if math.isfinite(one.value)]
    x, y = [one.iteration for one in finite], [one.value for one in finite]
    return Series(name, x, y, colour, faded=faded, marked=True)


def _before(found: Findings) -> dict[str, Any]:
    page = "data.html"
    has_page = (found.run.folder / page).is_file()
    content = dict(found.preflight)
    warnings = [*_sentences(content.pop("refusals", ())), *_sentences(content.pop("warnings", ()))]
    rows = flattened(content) if content else []
    return {"warnings": warnings, "rows": rows, "page": page if has_page else ""}


def _sentences(value: Any) -> list[str]:
    return [as_text(one) for one in value] if isinstance(value, list | tuple) else []


def _settings(found: Findings) -> dict[str, Any]:
    run = found.run
    defaults = OmegaConf.create({"train": train_defaults()})
    own = OmegaConf.create({"train": plain(run.cfg.train)})
    changed = differences(defaults, own)
    distillation, others, name = [], [], ""
    if found.partners:
        alone = found.partners.alone
        name = f"student alone ({alone.name})"
        unlike = deciding_differences(comparable(alone.cfg), comparable(run.cfg))
        for key, (then, now) in unlike.items():
            if not is_of_distillation(key):
                others.append((key, as_text(now), as_text(then)))
            elif not _OF_TEACHERS_MODEL.match(key):
                distillation.append((key, as_text(now)))
    card = "" if found.card is None else _yaml(found.card)
    return {
        "train": [(key, as_text(now), as_text(then)) for key, (then, now) in changed.items()],
        "distillation": distillation,
        "others": others,
        "partner": name,
        "config": OmegaConf.to_yaml(run.cfg),
        "card": card,
    }


def _yaml(tree: Any) -> str:
    return yaml.safe_dump(plain(tree), sort_keys=False, allow_unicode=True, width=100)


def _measured(found: Findings) -> list[str]:
    sample, sentences = found.sample, []
    if sample:
        count = f"all {sample.total:,}"
        if not sample.is_whole:
            count = f"{len(sample.records):,} of {sample.total:,}, drawn at random,"
        sentences += [
            f"The detections are those on {count} test images, with the final weights.",
            f"Missed and wrong: of detections with a score of {SCORE} or more, by COCO's matching"
            " at an IoU of 0.5.",
            f"Times are {sample.clock} on {sample.device}, one image at a time, without reading the"
            f" file; the first {WARM_UP} images are left out.",
        ]
    if found.partners and found.partners.difference.bounds:
        values = list(found.partners.difference.values.values())
        sentences.append(
            "The interval is that of the mean difference of pairs with the same seed, by Student's"
            f" t distribution with {len(values) - 1} degrees of freedom. It tells how runs vary,"
            " and not how test images would."
        )
        if not found.partners.difference.is_shown and (needed := pairs_needed(values)):
            sentences.append(f"About {needed} pairs in all would show a difference of this size.")
    return sentences
