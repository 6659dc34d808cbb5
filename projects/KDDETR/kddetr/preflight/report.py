"""The result of a preflight: a table of sentences, warnings, and ``preflight.json``."""

import datetime
import json
import math
import os
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..checkpoint import atomic_write
from ..errors import ConfigError
from .advice import refusals, warnings
from .measured import Measured
from .names import known_words
from .sample_ap import SampleAP

FILE = "preflight.json"
WIDTH = 100  # characters of a printed line
WEAK_CLASS = 0.5  # of the teacher's AP
FEWEST_OBJECTS = 5  # of a class that is called weak


@dataclass(frozen=True)
class PreflightReport:
    """What was found before a training.

    Attributes:
        rows: what was measured, each a short name and a sentence.
        warnings: why the distillation may not pay, and what to do.
        refusals: why it makes no sense.
        figures: all numbers as plain values, see docs/before_you_distil.md.
    """

    rows: list[tuple[str, str]]
    warnings: list[str]
    refusals: list[str]
    figures: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        """The table, the warnings and the refusals, for a terminal or a log."""
        first = max((len(name) for name, _ in self.rows), default=0) + 2
        lines = []
        for name, words in self.rows:
            lines += _wrapped(f"{name:<{first}}{words}", " " * first)
        for kind, sentences in (("warning", self.warnings), ("refused", self.refusals)):
            for sentence in sentences:
                lines += _wrapped(f"{kind}: {sentence}", " " * (len(kind) + 2))
        return "\n".join(lines)

    def require(self, *, force: bool = False) -> None:
        """Raise a ConfigError where there are refusals, unless ``force``."""
        if self.refusals and not force:
            raise ConfigError(self.refusals[0])

    def save(self, folder: str) -> None:
        """Write ``preflight.json`` into an output folder."""
        os.makedirs(folder, exist_ok=True)
        content = self.figures | {"warnings": self.warnings, "refusals": self.refusals}
        text = json.dumps(_plain(content), indent=1, ensure_ascii=False)
        atomic_write(os.path.join(folder, FILE), lambda stream: stream.write(text.encode()))


class Finding(Protocol):
    """Something odd about the data, as a data report has it."""

    severity: str  # "error", "warning" or "note"
    sentence: str


def report_on(m: Measured, findings: Sequence[Finding] = ()) -> PreflightReport:
    """The report on what was measured; errors among the ``findings`` are refusals, and warnings are
    warnings.
    """

    def of_data(severity: str) -> list[str]:
        return [found.sentence for found in findings if found.severity == severity]

    return PreflightReport(
        rows=_rows(m),
        warnings=[*warnings(m), *of_data("warning")],
        refusals=[*refusals(m), *of_data("error")],
        figures=m.figures(),
    )


def _rows(m: Measured) -> list[tuple[str, str]]:
    guide = "about as far as its student can come"
    if m.vocabularies is not None and m.vocabularies.teacher and m.vocabularies.unknown:
        guide += " in the classes that it knows"
    rows = [("Teacher", _ap_words(m.teacher, m.judged_on, guide))]
    if weak := _weak_classes(m.teacher):
        rows.append(("", weak))
    if m.student is not None:
        words = _ap_words(m.student, m.judged_on, "with the weights that it starts from")
        rows.append(("Student", words))
    if m.alone is not None:
        rows.append(("Student alone", f"AP {m.alone:.1f} in the run that was named."))
    if m.vocabularies is not None:
        rows.append(("Classes", _names_words(m)))
    if m.labels is not None:
        rows.append(("Labels", _labels_words(m)))
    rows += [*_step_rows(m), *_ratio_rows(m)]
    if m.eta is not None:
        rows.append(("Time of the run", _eta_words(m)))
    rows += [("Left out", note) for note in m.notes]
    rows.append(("Preflight", _own_time(m)))
    return [(name, words) for name, words in rows if words]


def _ap_words(ap: SampleAP | None, judged_on: str, what: str) -> str:
    if ap is None or math.isnan(ap.value):
        return ""
    low, high = ap.interval
    return (
        f"AP {ap.value:.1f} on {ap.images} {judged_on} images, {what}; from {low:.1f} to {high:.1f}"
        " in 95 % of resamples."
    )


def _weak_classes(ap: SampleAP | None) -> str:
    if ap is None or math.isnan(ap.value):
        return ""
    weak = {
        name: value
        for name, value in ap.classes.items()
        if value < WEAK_CLASS * ap.value and ap.objects.get(name, 0) >= FEWEST_OBJECTS
    }
    if not weak:
        return ""
    worst = sorted(weak, key=weak.__getitem__)[:5]
    shown = ", ".join(f"{name} {weak[name]:.1f} ({ap.objects[name]} objects)" for name in worst)
    more = f" and {len(weak) - len(worst)} more classes" if len(weak) > len(worst) else ""
    return f"It is weak at {shown}{more}."


def _names_words(m: Measured) -> str:
    names = m.vocabularies
    if not names.teacher:
        return (
            f"The data have {len(names.data)}; the names of the teacher's are not known, so they"
            " are taken to be the same in the same order."
        )
    return f"{known_words(names)}."


def _labels_words(m: Measured) -> str:
    boxes = sum(m.labels.boxes.values())
    words = f"{m.labels.images} labelled training images with {boxes} counted boxes"
    return f"{words}, and {m.run.unlabelled} without labels." if m.run.unlabelled else f"{words}."


def _step_rows(m: Measured) -> list[tuple[str, str]]:
    known, memory, rows = m.steps.medians(), m.steps.memory, []
    parts = []
    if "plain" in known:
        parts.append(f"{_short(known['plain'])} of the student alone")
    if "first" in known:
        parts.append(f"{_short(known['first'])} with the teacher")
    if "again" in known:
        parts.append(f"{_short(known['again'])} with images that the teacher has met before")
    if known.get("waiting"):
        parts.append(f"{_short(known['waiting'])} of waiting for images beside it")
    if parts:
        rows.append(("Time of a step", "; ".join(parts) + "."))
    names = {"plain": "of the student alone", "distilled": "with the teacher"}
    if memory:
        shown = [f"{mb / 1024:.1f} GiB {names[name]}" for name, mb in memory.items()]
        rows.append(("Largest memory", "; ".join(shown) + f" ({m.steps.images} images)."))
    return rows


def _ratio_rows(m: Measured) -> list[tuple[str, str]]:
    if m.ratio is None:
        return []
    words = (
        f"At the start the distillation pulls {_times(m.ratio)} times as hard as the labels (median"
        f" of {len(m.ratios)} batches)."
    )
    if m.settled is not None:
        words += f" model.weight=auto has become {m.settled:g}, by what follows in a trial."
    return [("Gradient ratio", words)]


def _eta_words(m: Measured) -> str:
    words = f"About {_long(m.eta)} for {m.run.iterations} iterations"
    if m.evaluation_seconds:
        times = "evaluation" if m.run.evaluations == 1 else "evaluations"
        words += (
            f", of it {_long(m.evaluation_seconds)} for {m.run.evaluations} {times} of"
            f" {m.run.test_images} images"
        )
    return f"{words}."


def _own_time(m: Measured) -> str:
    share = f", {100 * m.seconds / m.eta:.1f} % of the run" if m.eta else ""
    return f"It took {_long(m.seconds)}{share}."


def _times(ratio: float) -> str:
    return f"{ratio:.1f}" if 0.1 <= ratio < 100 else f"{ratio:.1g}"


def _short(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 0.1 else f"{1000 * seconds:.0f} ms"


def _long(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    return str(datetime.timedelta(seconds=round(seconds)))


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, subsequent_indent=indent, break_on_hyphens=False)


def _plain(value: Any) -> Any:
    """A value for JSON, in which NaN is null."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
