"""The pictures of a report, as the text that an ``<img>`` holds: the images with the most errors,
and the points at which student and teacher differ most.
"""

import base64
import copy
import io
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from detectron2.utils import comm
from omegaconf import DictConfig
from PIL import Image
from torch import nn

from ..data import read_image
from ..engine import build
from ..engine.watch import compared
from ..visualization import detections_side_by_side
from .differences import Difference, differences, draw_differences, most_different
from .sample import SCORE, Deadline, Sample

WIDTH, QUALITY = 1400, 80  # of a picture on the page: pixels, and JPEG's quality
SHOWN = 3  # images with the most errors of each detector
COMPARED = 40  # images whose points are compared at most


def worst_images(sample: Sample, name: str, names: Sequence[str]) -> tuple[str, list[int]]:
    """The images on which a detector makes the most errors, with what all detectors find there.

    Args:
        sample: what was found.
        name: of the detector.
        names: of the classes.

    Returns:
        the picture, "" where the detector makes no error, and the number of errors in each image
        that it shows.
    """
    errors = sample.errors(name)
    order = sorted(range(len(errors)), key=lambda i: -errors[i])[:SHOWN]
    chosen = [i for i in order if errors[i]]
    if not chosen:
        return "", []
    columns = {"ground truth": [sample.truth[i] for i in chosen]}
    for one in sorted(sample.asked, key=lambda one: one != "teacher"):
        columns[one] = [sample.asked[one].found[i] for i in chosen]
    images = [read_image(sample.records[i]["file_name"]) for i in chosen]
    with tempfile.TemporaryDirectory() as folder:
        file = detections_side_by_side(
            images,
            columns,
            class_names=names,
            path=Path(folder, "worst.jpg"),
            score_threshold=SCORE,
            titles=[Path(sample.records[i]["file_name"]).stem[-24:] for i in chosen],
        )
        return as_data(file), [errors[i] for i in chosen]


def different_points(
    model: nn.Module, sample: Sample, cfg: DictConfig, names: Sequence[str], *, deadline: Deadline
) -> str:
    """The points of a distillation at which student and teacher differ most, on some images of a
    sample; "" where the sampler makes no points.

    Args:
        model: the distiller.
        sample: whose images are taken.
        cfg: of the test set.
        names: of the classes.
        deadline: no image is begun after it, but one is compared in any case.
    """
    mapper = build(cfg.dataloader.test.mapper)
    records = list(sample.records[:COMPARED])

    def batches() -> Iterator[list[dict[str, Any]]]:
        for i, record in enumerate(records):
            if i and deadline.is_over:
                return
            yield [mapper(copy.deepcopy(record))]

    worst: list[Difference] = []
    # Every process would take its share of this number.
    count = len(records) * comm.get_world_size()
    for found in compared(model, batches(), count, seed=cfg.train.seed):
        worst = most_different([*worst, *differences(*found)])
    if not worst:
        return ""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "differences.jpg")
        draw_differences(worst, names, file, detectors=("teacher", "student"))
        return as_data(file)


def as_data(file: Path) -> str:
    """A picture as a ``data:`` address, small enough for a page."""
    with Image.open(file) as picture:
        small = picture.convert("RGB")
    if small.width > WIDTH:
        small = small.resize((WIDTH, round(small.height * WIDTH / small.width)), Image.LANCZOS)
    stream = io.BytesIO()
    small.save(stream, "JPEG", quality=QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()
