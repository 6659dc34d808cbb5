"""The pages of docs/: their tables, plots and single figures, made from the files of results."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarking.tables import read_results
from kddetr.errors import UsageError, did_you_mean
from kddetr.report.intervals import with_interval
from teacher_answers import table as answers_table

from .plan import EXPERIMENTS
from .plots import PLOTS, draw_all, file_name
from .results import Results
from .scales import CPU, GPU, Scale
from .speed import COMMANDS, speed_table
from .tables import cell, correction, difference, main_metric, rows_of, table

BLOCK = re.compile(r"(<!-- evidence on (\w+): (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
FIGURE = re.compile(r"(<!-- (\w+): (\w+) ([\w.]+) (\w+) -->)[^<]*(<!-- -->)")
SCALES = (CPU, GPU)
ANSWERS_COMMAND = (
    "python tools/teacher_answers.py configs/quickstart/distilled.py"
    " configs/quickstart/anchors_distilled_from_dino.py --output docs/evidence/cpu_answers.json"
)


@dataclass(frozen=True)
class Evidence:
    """What has been measured at one scale.

    Attributes:
        scale: the scale.
        results: of the runs.
        costs: CPU seconds of a step, by experiment and line.
        performance: the figures of tools/performance.py on a CPU, by measurement.
        answers: those of tools/teacher_answers.py, by config and group of points.
    """

    scale: Scale
    results: Results
    costs: Mapping[str, Mapping[str, float]]
    performance: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    answers: Mapping[str, Any] = field(default_factory=dict)

    def table(self, name: str) -> str:
        """The table of an experiment, or a sentence that there is none yet; the link to a plot; of
        ``where`` a sentence about the machine; of ``speed`` the students of all families.

        Raises:
            UsageError: there is no such table.
        """
        if name == "where":
            return where(self.results, self.scale)
        if name.startswith("plot_"):
            return self.plot(name.removeprefix("plot_"))
        if name == "answers":
            return _with_command(answers_table(self.answers), ANSWERS_COMMAND)
        if name == "speed":
            text = speed_table({e.name: e for e in EXPERIMENTS}, self.results, self.performance)
            return _with_command(text, "\n".join(COMMANDS))
        experiment = _experiment(name)
        text = table(experiment, self.results, self.costs, self.scale)
        if not text and self.scale is not CPU:
            return ""  # one sentence for the whole scale is enough
        if text and experiment.claim:
            text = f"{text}\n\n{correction(experiment, self.results, self.scale)}"
        at = "" if self.scale is CPU else f" --scale {self.scale.name}"
        return _with_command(text, f"python tools/evidence.py{at} --only {name}")

    def plot(self, name: str) -> str:
        """The link to a plot; empty where it has not been drawn.

        Raises:
            UsageError: there is no such plot.
        """
        if name not in PLOTS:
            raise UsageError(f"There is no plot {name!r}; {did_you_mean(name, PLOTS)}")
        file = self.results.file.parent / file_name(name, self.scale)
        return f"![{PLOTS[name][1]}]({file.parent.name}/{file.name})" if file.is_file() else ""

    def figure(self, name: str, line: str, column: str) -> str:
        """One cell of a table. ``gain`` is the difference to the first baseline, and
        ``minus_LINE`` that to another line.

        Raises:
            UsageError: there is no such table, line or figure.
        """
        experiment = _experiment(name)
        rows = rows_of(experiment, self.results, self.scale)
        other = column.removeprefix("minus_") if column.startswith("minus_") else ""
        for wanted in filter(None, (line, other)):
            if wanted not in rows:
                hint = did_you_mean(wanted, rows)
                raise UsageError(f"{name} has no result of {wanted!r}; {hint}")
        if other or column == "gain":
            baseline = rows.get(other or experiment.baselines[0], {})
            return with_interval(difference(rows[line], baseline, main_metric(experiment)))
        mine = list(rows[line].values())
        one = experiment.line(line)
        return cell(column, experiment, one, mine, self.results, self.costs, self.scale)


def evidence_of(docs: Path, scale: Scale = CPU) -> Evidence:
    """What the files of a folder of documents say about a scale."""
    costs = _read(steps_file(docs, scale))
    answers = _read(docs / "evidence" / f"{scale.name}_answers.json")
    times = read_results(docs / "performance" / f"{scale.name}.jsonl")
    return Evidence(scale, Results(results_file(docs, scale)), costs, times, answers)


def _read(file: Path) -> dict[str, Any]:
    """The content of a JSON file; empty where it does not exist."""
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return found


def results_file(docs: Path, scale: Scale) -> Path:
    """The file with a line for each run."""
    return docs / "evidence" / f"{scale.name}.jsonl"


def steps_file(docs: Path, scale: Scale) -> Path:
    """The file with the time of the steps."""
    return docs / "evidence" / f"{scale.name}_steps.json"


def write_pages(docs: Path) -> None:
    """Write the tables and figures of all pages that have a place for them, and the plots."""
    for scale in SCALES:
        draw_all(docs / "evidence", evidence_of(docs, scale).results, scale)
    for page, text in current(docs).items():
        page.write_text(text, encoding="utf-8")


def current(docs: Path) -> dict[Path, str]:
    """The text that each page with a place for a table or a figure should have."""
    evidence = {scale.name: evidence_of(docs, scale) for scale in SCALES}
    pages = [*sorted(docs.glob("*.md")), *docs.parent.glob("README.md")]
    texts = {page: page.read_text(encoding="utf-8") for page in pages}
    return {
        page: updated(text, evidence)
        for page, text in texts.items()
        if BLOCK.search(text) or FIGURE.search(text)
    }


def updated(page: str, evidence: Mapping[str, Evidence]) -> str:
    """The page with new tables between its markers, ``<!-- evidence on SCALE: TABLE -->`` and
    ``<!-- end -->``, and new figures between ``<!-- SCALE: TABLE LINE COLUMN -->`` and
    ``<!-- -->``; the text around them stays.

    Raises:
        UsageError: a marker names an unknown table, line or column.
    """

    def fill_block(match: re.Match[str]) -> str:
        start, scale, name, end = match.groups()
        text = evidence[scale].table(name)
        return f"{start}\n{text}\n\n{end}" if text else start + end

    def fill_figure(match: re.Match[str]) -> str:
        start, scale, name, line, column, end = match.groups()
        if scale not in evidence:
            return match[0]
        return f"{start}{evidence[scale].figure(name, line, column)}{end}"

    return FIGURE.sub(fill_figure, BLOCK.sub(fill_block, page))


def where(results: Results, scale: Scale) -> str:
    """Sentences about the machine and the versions of the runs."""
    runs = results.all()
    if not runs and scale is GPU:
        return (
            "Nothing has been measured on a GPU: none was at hand. One command trains all of it,"
            " and writes the tables here:\n\n```bash\npython tools/evidence.py --scale gpu\n```"
        )
    if not runs:
        return "Nothing has been measured yet."

    def all_of(key: str) -> str:
        return ", ".join(dict.fromkeys(str(run[key]) for run in runs if run.get(key)))

    earlier = sum(bool(run.get("config_changed")) for run in runs)
    unknown = sum(not run.get("commit") for run in runs)
    sentences = [f"{len(runs):,} runs."]
    if unknown < len(runs):
        sentences.append(
            f"They were trained on {all_of('processor')}, with PyTorch {all_of('torch')} and"
            f" Detectron2 {all_of('detectron2')}. Each line of the file names its commit."
        )
    if earlier:
        sentences.append(
            f"{earlier} of them, marked in the file, were made before their config, a default of it"
            " or their teacher changed."
        )
    if unknown:
        sentences.append(
            f"Of {unknown}, by an earlier program, neither machine nor commit is known."
        )
    return " ".join(sentences)


def _with_command(text: str, command: str) -> str:
    """A table and the command that makes it; without a table, a sentence that it lacks."""
    return f"{text or 'Not measured yet:'}\n\n```bash\n{command}\n```"


def _experiment(name: str):
    found = {experiment.name: experiment for experiment in EXPERIMENTS}
    if name not in found:
        raise UsageError(f"There is no experiment {name!r}; {did_you_mean(name, found)}")
    return found[name]
