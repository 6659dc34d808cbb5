"""The three pictures that the quickstart draws from its runs."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog

from comparison import student
from kddetr.data import DetectionMapper
from kddetr.engine import build, load_config
from kddetr.losses import ForegroundWeight
from kddetr.structures import EncodedDetector
from kddetr.visualization import ap_curves, detections_side_by_side, points_over_image
from runs import ROOT, Run

IMAGES = 4
SHOWN = ("alone", "distilled", "distilled_unlabeled")


def draw_pictures(
    output: Path, runs: Mapping[str, Run], teacher: torch.nn.Module, names: Mapping[str, str]
) -> list[Path]:
    """Draws detections side by side, points over an image, and AP curves into PNG files in
    ``output``, and returns these files.

    ``names`` has the titles of the finished ``runs``, in the order to show them.
    """
    records = DatasetCatalog.get("quickstart_test")
    chosen = [records[i] for i in np.linspace(0, len(records) - 1, IMAGES).round().astype(int)]
    mapper = DetectionMapper(is_train=True, augmentations=[])
    inputs = [mapper(record) for record in chosen]
    images = [np.ascontiguousarray(x["image"].permute(1, 2, 0).numpy()) for x in inputs]

    detectors = {"teacher": teacher} | {names[key]: student(runs[key]) for key in SHOWN}
    with torch.no_grad():
        found = {
            name: [output["instances"] for output in detector.eval()(inputs)]
            for name, detector in detectors.items()
        }
    side_by_side = detections_side_by_side(
        images,
        {"ground truth": [x["instances"] for x in inputs]} | found,
        class_names=MetadataCatalog.get("quickstart_test").thing_classes,
        path=output / "detections.png",
    )
    over_image = _draw_points(teacher, inputs[0], images[0], output / "points.png")
    curves = ap_curves(
        {
            name: [(i, seconds, ap) for i, (seconds, ap) in runs[key].evaluations()]
            for key, name in names.items()
            if key in runs
        },
        path=output / "curves.png",
    )
    return [side_by_side, over_image, curves]


def _draw_points(teacher: torch.nn.Module, x: dict, image: np.ndarray, path: Path) -> Path:
    """The points that the quickstart's sampler draws for one image, with the teacher's weights."""
    sampler = build(load_config(str(ROOT / "configs/quickstart/distilled.py")).model.sampler)
    torch.manual_seed(0)
    with torch.no_grad():
        asked = EncodedDetector(teacher, teacher.encode([x]))
        points = sampler(asked, asked)
        weights = ForegroundWeight()(asked.decode(points))[0]
    return points_over_image(
        image,
        points,
        weights,
        path=path,
        title="Distillation points of one training step, by the teacher's foreground weight",
    )
