"""The small students of all families side by side: how fast each detects, and its AP."""

from collections.abc import Mapping
from typing import Any

from comparison import markdown

from .families import DAB, DINO, RCNN
from .lines import Experiment
from .results import Results
from .scales import CPU, Scale
from .tables import cell, rows_of

# The title of a student, the measurement of its time (tools/benchmarking/plan.py), its experiment,
# and the lines alone and distilled from the bundled teacher, or for DINO from one of its family.
STUDENTS = (
    ("RT-DETRv2", "student_rtdetr", "realtime", "alone", "distilled"),
    (f"{DAB}, deformable attention", "student_dab", "to_dab", "alone", "from_dab_both"),
    (DINO, "student_dino", "to_dino", "alone", "from_dino_both"),
    (RCNN, "student_rcnn", "to_rcnn", "alone", "from_dab_both"),
)
HEADS = ("student", "parameters", "1 image, ms", "8 images, images/s")
COMMANDS = (
    "python tools/performance.py --only students",
    "python tools/evidence.py --only families realtime",
)


def speed_table(
    experiments: Mapping[str, Experiment],
    results: Results,
    measured: Mapping[str, Mapping[str, Any]],
    scale: Scale = CPU,
) -> str:
    """The Markdown table, with empty cells where something has not been measured; empty where
    nothing has.

    Args:
        experiments: all of them, by name.
        results: of the trainings.
        measured: the figures of tools/performance.py, by the name of the measurement.
    """
    lines = [[*HEADS, "iterations", "AP alone", "AP distilled"]]
    for title, measurement, name, *pair in STUDENTS:
        experiment = experiments[name]
        found = rows_of(experiment, results, scale)
        rows = [list(found.get(line, {}).values()) for line in pair]
        cells = [
            cell("AP", experiment, experiment.line(line), mine, results, {}, scale)
            for line, mine in zip(pair, rows)
        ]
        lengths = {f"{result['iterations']:,}" for mine in rows for result in mine}
        alone = measured.get(measurement, {}).get("student_alone")
        lines.append([title, *_seconds(alone), " and ".join(sorted(lengths)), *cells])
    return markdown(lines) if any(any(line[1:]) for line in lines[1:]) else ""


def _seconds(alone: Mapping[str, Any] | None) -> list[str]:
    if alone is None:
        return [""] * 3
    one, eight = alone["batch_1"]["seconds"]["median"], alone["batch_8"]["images_per_second"]
    return [f"{alone['parameters'] / 1e6:.2f} M", f"{1000 * one:.3g}", f"{eight:.3g}"]
