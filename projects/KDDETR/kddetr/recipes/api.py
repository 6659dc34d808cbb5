"""The front door in Python: ``distill`` and ``train``."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .decisions import print_decisions
from .measuring import measure_first
from .request import Request
from .running import config_to_resume, train_here, write_plan


@dataclass(frozen=True)
class Trained:
    """A finished training.

    Attributes:
        folder: its output folder.
        config: the config file that was trained.
        weights: the trained detector: the best of the evaluations, or without any the last.
        results: of the last evaluation, nested: ``{"bbox": {"AP": 41.2, ...}}``.
    """

    folder: Path
    config: Path
    weights: Path
    results: dict[str, Any]


def distill(
    teacher: str,
    data: str | None = None,
    student: str = "dino_r18",
    *,
    unlabeled: str | None = None,
    output: str | None = None,
    teacher_config: str | None = None,
    teacher_classes: str | None = None,
    same_classes: Mapping[str, str] | None = None,
    image_size: int | None = None,
    preflight: bool = True,
    resume: bool = False,
    **overrides: Any,
) -> Trained:
    """Distil a teacher into a small detector, in this process and on one device.

    ``tools/distill.py`` does the same from the command line, on several devices too.

    Args:
        teacher: the file of a trained detector, see :func:`~kddetr.recipes.recognize`.
        data: a folder of labelled images; None: only the teacher teaches, on ``unlabeled``.
        student: the name of a detector, see :func:`~kddetr.recipes.students`, or a config file.
        unlabeled: a folder of further images without labels.
        output: the output folder; None: one named after data and student, below ``output``.
        teacher_config: the config of a teacher whose file does not say enough.
        teacher_classes: class names of a teacher whose file does not say them.
        same_classes: names in the data that the teacher calls by others: ``{data: teacher}``.
        image_size: the short side of a test image in pixels; 0: images as they are.
        preflight: look at the data and measure first whether the distillation will pay.
        resume: continue the run in the output folder.
        overrides: values of the config by their dotted keys, ``**{"train.max_iter": 1000}``.

    Returns:
        The folder of the run, its weights and its results.

    Raises:
        UserError: something cannot be used; the message says what to do.
    """
    request = Request(
        teacher=str(teacher),
        data=str(data or ""),
        model=str(student),
        unlabeled=str(unlabeled or ""),
        output=str(output or ""),
        teacher_config=str(teacher_config or ""),
        teacher_classes=teacher_classes or "",
        same_classes=[f"{ours}={theirs}" for ours, theirs in (same_classes or {}).items()],
        image_size=image_size,
        overrides=[_override(key, value) for key, value in overrides.items()],
    )
    return _trained(request, "kddetr.distill(...)", resume=resume, preflight=preflight)


def train(
    data: str,
    model: str = "",
    *,
    weights: str | None = None,
    output: str | None = None,
    image_size: int | None = None,
    preflight: bool = True,
    resume: bool = False,
    **overrides: Any,
) -> Trained:
    """Train a detector alone, for instance a teacher, as ``tools/train.py`` does.

    Args:
        data: a folder of labelled images.
        model: the name of a detector, see :func:`~kddetr.recipes.students`, or a config file; may
            be left out where ``weights`` are those of a detector.
        weights: a file to start from, a published one too; None: as in the recipe.
        output, image_size, preflight, resume, overrides: see :func:`distill`.
    """
    request = Request(
        data=str(data),
        model=str(model),
        weights=str(weights or ""),
        output=str(output or ""),
        image_size=image_size,
        overrides=[_override(key, value) for key, value in overrides.items()],
    )
    return _trained(request, "kddetr.recipes.train(...)", resume=resume, preflight=preflight)


def _trained(request: Request, command: str, *, resume: bool, preflight: bool) -> Trained:
    if resume:
        file, changes = config_to_resume(request), request.config_overrides
    else:
        made, file = write_plan(request, command)
        print_decisions(made.decisions)
        changes = []
        if preflight:
            measure_first(made, file, num_gpus=1, force=False)
    results = train_here(file, changes, resume=resume)
    folder = Path(file).parent
    best = folder / "model_best.pth"
    weights = best if best.is_file() else folder / "model_final.pth"
    return Trained(folder, Path(file), weights, results)


def _override(key: str, value: Any) -> str:
    """A value as it is written on a command line."""
    return f"{key}={value if isinstance(value, str) else json.dumps(value)}"
