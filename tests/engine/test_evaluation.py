"""COCO's metric: equal numbers whoever computes it, and zero when nothing is found."""

import logging
import math

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Boxes, BoxMode, Instances

from kddetr.engine import CocoEvaluator, coco_backend


def detections(rng: np.random.Generator, size: int, number: int) -> Instances:
    found = Instances((size, size))
    corner = rng.uniform(0, size / 2, (number, 2)).round(-1)
    found.pred_boxes = Boxes(
        torch.as_tensor(np.hstack([corner, corner + size / 2]), dtype=torch.float32)
    )
    found.scores = torch.as_tensor(rng.random(number))
    found.pred_classes = torch.as_tensor(rng.integers(0, 3, number))
    return found


def evaluate(evaluator: CocoEvaluator, toy, number: int) -> dict[str, float]:
    rng = np.random.default_rng(0)
    evaluator.reset()
    for index in range(toy.IMAGES):
        found = detections(rng, toy.SIZE, number)
        evaluator.process([{"image_id": index + 1}], [{"instances": found}])
    return evaluator.evaluate()["bbox"]


def test_backends_agree(toy, dataset):
    fast = evaluate(CocoEvaluator(dataset), toy, 60)
    slow = evaluate(CocoEvaluator(dataset, backend="pycocotools"), toy, 60)
    assert fast["AP"] > 0 and fast.keys() == slow.keys() and "AP-class5" in fast
    for name, value in slow.items():
        assert fast[name] == pytest.approx(value, abs=1e-9, nan_ok=True)
    assert coco_backend()[0] in (
        "faster-coco-eval",
        "Detectron2's compiled COCOeval",
        "pycocotools",
    )


def test_nothing_found_is_zero(toy, dataset, caplog):
    DatasetCatalog.get(dataset)
    with caplog.at_level(logging.WARNING, logger="kddetr"):
        results = evaluate(CocoEvaluator(dataset), toy, 0)
    assert "no detection on 6 images" in caplog.text
    assert results["AP"] == results["AP50"] == results["APs"] == results["AP-class1"] == 0.0
    assert math.isnan(results["APl"])  # the toy has no large object


def test_no_stale_ground_truth(tmp_path):
    def records(size: int) -> list[dict]:
        box = {"bbox": [0, 0, size, size], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0}
        return [{"file_name": "a", "image_id": 1, "height": 64, "width": 64, "annotations": [box]}]

    for size in (8, 40):
        DatasetCatalog.register("engine_converted", lambda size=size: records(size))
        MetadataCatalog.get("engine_converted").thing_classes = ["thing"]
        try:
            evaluator = CocoEvaluator("engine_converted", output_dir=str(tmp_path))
        finally:
            DatasetCatalog.remove("engine_converted")
            MetadataCatalog.remove("engine_converted")
        assert evaluator._coco_api.dataset["annotations"][0]["bbox"][2] == size
    assert not list(tmp_path.glob("*_coco_format.json"))
