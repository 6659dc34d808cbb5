"""All that a report of a run is made of: read from its folder, and measured."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..checkpoint import CheckpointError, read_card
from ..engine.evaluation.sets import by_evaluation_set, has_test_data
from ..engine.watch import watched
from ..errors import UserError
from .models import WEIGHTS, detectors_of, load_model
from .partners import Partners, find_partners
from .pictures import different_points, worst_images
from .run import Run
from .sample import Deadline, Sample, ask

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Picture:
    """A picture of the page: title, explanation, and its ``data:`` address."""

    title: str
    note: str
    data: str


@dataclass
class Findings:
    """What the page of a run shows.

    Attributes:
        run: the run.
        partners: the student alone, where there is such a run.
        sample: teacher and student on a sample of the test images; None where that is not possible.
        teacher_is_partial: whether the teacher cannot detect all of the student's classes.
        test_set: the name of the test set of the sample; "" where there is only one.
        pictures: drawn images.
        preflight: the content of ``preflight.json``; empty without that file.
        card: the model card in the final checkpoint; None without one.
        remarks: sentences about what is missing on the page, and why.
    """

    run: Run
    partners: Partners | None = None
    sample: Sample | None = None
    teacher_is_partial: bool = False
    test_set: str = ""
    pictures: list[Picture] = field(default_factory=list)
    preflight: Mapping[str, Any] = field(default_factory=dict)
    card: dict[str, Any] | None = None
    remarks: list[str] = field(default_factory=list)


def gather(
    run: Run,
    model: nn.Module | None = None,
    *,
    alone: Sequence[Run] = (),
    images: int = 300,
    seconds: float | None = None,
) -> Findings:
    """Read and measure what a report shows. What cannot be had is left out, with a remark.

    Args:
        run: the run.
        model: the model with its final weights, where it is at hand; None: it is loaded.
        alone: runs of the student alone, see :func:`~.partners.find_partners`.
        images: of the sample; 0: nothing is detected and drawn.
        seconds: about how long it may take; None: as long as it takes. The sample becomes smaller.

    Raises:
        UsageError: ``alone`` cannot be compared with the run.
    """
    found = Findings(run)
    # Looking through the folders beside a run takes a small part of the time.
    found.partners = find_partners(run, alone, deadline=_part(seconds, 0.15))
    if run.is_distilled and run.evaluations and found.partners is None:
        without = "model.weight=0"
        if run.cfg.dataloader.train.get("unlabeled_per_batch"):
            without += " dataloader.train.unlabeled_per_batch=0"
        found.remarks.append(
            "There is no run of the student alone in the folders beside this one, so it is not"
            " known what the distillation has gained. Train one with the same command and"
            f" {without} in an output folder beside this one, or name one with --alone."
        )
    found.preflight = _read_json(run.folder / "preflight.json", found.remarks)
    if (run.folder / WEIGHTS).is_file():
        found.card = _card(run.folder / WEIGHTS)
    if images and has_test_data(run.cfg):
        try:
            _detect(found, model, images, seconds)
        except (UserError, OSError, torch.OutOfMemoryError) as error:
            found.remarks.append(f"No detections are shown: {error}")
    return found


def _detect(found: Findings, model: nn.Module | None, images: int, seconds: float | None) -> None:
    """Ask the detectors, and draw."""
    run = found.run
    model = load_model(run) if model is None else model
    found.test_set, part = next(iter(by_evaluation_set(run.cfg).items()))
    detectors = detectors_of(model)
    if "teacher" in detectors:
        known, wanted = detectors["teacher"].num_known, detectors["teacher"].num_classes
        found.teacher_is_partial = known < wanted
        if known < wanted:
            found.remarks.append(
                f"The teacher knows {known} of the {wanted} classes. Its AP is the mean over all of"
                " them, with 0 for the others, so it does not say how far the student can come."
            )
    sample = ask(detectors, part, images=images, deadline=_part(seconds, 0.5))
    found.sample = sample
    names = list(sample.objects)
    for name in detectors:
        data, errors = worst_images(sample, name, names)
        if data:
            counts = ", ".join(map(str, errors))
            note = (
                f"Of {len(sample.records):,} images, those with the most objects missed and"
                f" detections that are wrong: {counts}, from top to bottom."
            )
            found.pictures.append(Picture(f"The worst images of the {name}", note, data))
    if watched(model) is not None and "teacher" in detectors:
        data = different_points(model, sample, part, names, deadline=_part(seconds, 0.15))
        if data:
            note = (
                "Both are asked at the distillation points of the config. The same number and"
                " colour is the same point: where it is, what the teacher says there, and what the"
                " student says. The number in the first column is how much the two differ, from 0"
                " to 1."
            )
            title = "The points at which student and teacher still differ most"
            found.pictures.append(Picture(title, note, data))
    elif run.is_distilled and "teacher" not in detectors:
        found.remarks.append(
            "The teacher is not asked, because it is a record of answers, or could not be loaded."
        )


def _part(seconds: float | None, share: float) -> Deadline:
    return Deadline(None if seconds is None else share * seconds)


def _read_json(file: Path, remarks: list[str]) -> Mapping[str, Any]:
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        content = None
    if isinstance(content, dict):
        return content
    remarks.append(f"{file.name} cannot be read, so the findings of the preflight are not shown.")
    return {}


def _card(file: Path) -> dict[str, Any] | None:
    try:
        return read_card(str(file))
    except CheckpointError:  # the rest of the report does not need it
        return None
