"""What some lines need before they are trained: a recorded teacher, pseudo-labels, photographs."""

import shlex
import subprocess
import sys
from collections.abc import Callable

from kddetr.errors import UsageError

from . import ROOT
from .lines import Line
from .scales import CPU, Scale
from .trees import make_trees

RECORD = "output/quickstart/record"
THRESHOLDS = (0.3, 0.5, 0.7)
THRESHOLD = 0.5  # the best of them on the validation images, with the transformer and seed 0


def pseudo_labels(threshold: float) -> str:
    """The file of the bundled teacher's detections with at least this score, as labels."""
    return f"output/quickstart/pseudo_labels_{threshold}.json"


def overrides_of(line: Line, scale: Scale) -> tuple[str, ...]:
    """The overrides that name the files of this scale, where they are not those of the config."""
    if scale is CPU:
        return ()
    found = []
    for name in line.needs:
        kind, _, threshold = name.partition(" ")
        key = "model.teacher.path" if kind == "record" else "dataloader.train.unlabeled.json_file"
        found.append(f"{key}={_file(kind, threshold, scale)}")
    return tuple(found)


def prepare(line: Line, scale: Scale, say: Callable[[str], None]) -> None:
    """Make the record of the teacher, the pseudo-labels or the tiles of photographs that the line
    needs, if they lack.

    Raises:
        UsageError: the program that makes them failed, or the photographs cannot be downloaded.
    """
    for name in line.needs:
        if name == "trees":
            make_trees(say)
            continue
        kind, _, threshold = name.partition(" ")
        file = ROOT / _file(kind, threshold, scale)
        if (file / "card.json" if kind == "record" else file).is_file():
            continue
        say(f"making the {name}")
        words = [sys.executable, str(ROOT / "tools" / "record_teacher.py")]
        words += ["--output", str(ROOT / _file("record", "", scale))]
        config = ["--config-file", str(ROOT / "configs/quickstart/distilled.py")]
        _run([*words, *config])
        if kind != "record":
            _run([*words, "--pseudo-labels", str(file), "--threshold", threshold])


def _run(words: list[str]) -> None:
    done = subprocess.run(words, cwd=ROOT, stdout=subprocess.DEVNULL, check=False)
    if done.returncode:
        raise UsageError(f"{shlex.join(words)} ended with exit code {done.returncode}; see above.")


def _file(kind: str, threshold: str, scale: Scale) -> str:
    file = RECORD if kind == "record" else pseudo_labels(float(threshold))
    return file if scale is CPU else str(scale.output / file)
