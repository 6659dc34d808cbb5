"""The pictures that the quickstart draws of its teacher and of its runs."""

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


def draw_teacher(output: Path, teacher: torch.nn.Module) -> list[Path]:
    """Draws what can be seen before a student is trained, the teacher's detections and
    distillation points, into PNG files in ``output``, and returns these files."""
    output.mkdir(parents=True, exist_ok=True)
    inputs = _test_images()
    detections = _draw_detections(inputs, {"teacher": teacher}, output / "teacher.png")
    return [detections, _draw_points(teacher, inputs[0], output / "points.png")]


def draw_students(
    output: Path, runs: Mapping[str, Run], teacher: torch.nn.Module, names: Mapping[str, str]
) -> list[Path]:
    """Draws detections of teacher and students side by side, and AP curves, into PNG files in
    ``output``, and returns these files.

    ``names`` has the titles of the finished ``runs``, in the order to show them.
    """
    detectors = {"teacher": teacher} | {names[key]: student(runs[key]) for key in SHOWN}
    side_by_side = _draw_detections(_test_images(), detectors, output / "detections.png")
    curves = ap_curves(
        {
            name: [(i, seconds, ap) for i, (seconds, ap) in runs[key].evaluations()]
            for key, name in names.items()
            if key in runs
        },
        path=output / "curves.png",
    )
    return [side_by_side, curves]


def _test_images() -> list[dict]:
    """Some test images with their ground truth, as inputs of a detector."""
    records = DatasetCatalog.get("quickstart_test")
    chosen = np.linspace(0, len(records) - 1, IMAGES).round().astype(int)
    mapper = DetectionMapper(is_train=True, augmentations=[])
    return [mapper(records[i]) for i in chosen]


def _pixels(x: dict) -> np.ndarray:
    return np.ascontiguousarray(x["image"].permute(1, 2, 0).numpy())


def _draw_detections(
    inputs: list[dict], detectors: Mapping[str, torch.nn.Module], path: Path
) -> Path:
    """The images with their ground truth and with the detections of each detector."""
    with torch.no_grad():
        found = {
            name: [output["instances"] for output in detector.eval()(inputs)]
            for name, detector in detectors.items()
        }
    return detections_side_by_side(
        [_pixels(x) for x in inputs],
        {"ground truth": [x["instances"] for x in inputs]} | found,
        class_names=MetadataCatalog.get("quickstart_test").thing_classes,
        path=path,
    )


def _draw_points(teacher: torch.nn.Module, x: dict, path: Path) -> Path:
    """The points that the quickstart's sampler draws for one image, with the teacher's weights."""
    sampler = build(load_config(str(ROOT / "configs/quickstart/distilled.py")).model.sampler)
    torch.manual_seed(0)
    with torch.no_grad():
        asked = EncodedDetector(teacher, teacher.encode([x]))
        points = sampler(asked, asked)
        weights = ForegroundWeight()(asked.decode(points))[0]
    return points_over_image(
        _pixels(x),
        points,
        weights,
        path=path,
        title="Distillation points of one training step, by the teacher's foreground weight",
    )
