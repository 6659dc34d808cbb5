"""COCO's metric: equal numbers from all implementations, and 0 when nothing is detected."""

import json
import logging
import math

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import COCOEvaluator
from detectron2.structures import Boxes, BoxMode, Instances

from kddetr.data import register_coco_format
from kddetr.engine import CocoEvaluator, ConfigError, coco_backend


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


@pytest.mark.parametrize("limit", [None, 20])
def test_the_numbers_are_those_of_detectron2s_evaluator(toy, dataset, limit):
    arguments = {"tasks": ("bbox",), "max_dets_per_image": limit}
    DatasetCatalog.get(dataset)
    theirs = evaluate(COCOEvaluator(dataset, use_fast_impl=False, **arguments), toy, 60)
    assert evaluate(CocoEvaluator(dataset, **arguments), toy, 60) == pytest.approx(
        theirs, abs=1e-9, nan_ok=True
    )


def test_no_detection_is_ap_zero(toy, dataset, caplog):
    DatasetCatalog.get(dataset)
    with caplog.at_level(logging.WARNING, logger="kddetr"):
        results = evaluate(CocoEvaluator(dataset), toy, 0)
    assert "no detection on 6 images" in caplog.text
    assert results["AP"] == results["AP50"] == results["APs"] == results["AP-class1"] == 0.0
    assert math.isnan(results["APl"])  # the toy has no large object


@pytest.fixture()
def evaluated(tmp_path):
    """Evaluates detections ``(image, box xyxy, score)`` of one class against annotations
    ``(x, y, width, height, crowd)``.
    """
    names = []

    def evaluate(boxes: list, found: list, *, backend: str = "auto") -> dict:
        size, images = 64, [{"id": i, "file_name": f"{i}.png"} for i in (5, 9)]
        document = {"images": images, "categories": [{"id": 40, "name": "thing"}]}
        if boxes is not None:
            document["annotations"] = [
                {"id": i + 1, "image_id": 5, "category_id": 40, "bbox": [x, y, w, h]}
                | {"area": w * h, "iscrowd": crowd}
                for i, (x, y, w, h, crowd) in enumerate(boxes)
            ]
        names.append(f"engine_evaluated_{len(names)}")
        path = tmp_path / f"{names[-1]}.json"
        path.write_text(json.dumps(document))
        register_coco_format(name=names[-1], json_file=str(path), image_root=str(tmp_path))
        evaluator = CocoEvaluator(names[-1], backend=backend)
        evaluator.reset()
        for image in (5, 9):
            mine = [f for f in found if f[0] == image]
            instances = Instances((size, size))
            corners = torch.tensor([f[1] for f in mine], dtype=torch.float32).reshape(-1, 4)
            instances.pred_boxes = Boxes(corners)
            instances.scores = torch.tensor([f[2] for f in mine])
            instances.pred_classes = torch.zeros(len(mine), dtype=torch.int64)
            evaluator.process([{"image_id": image}], [{"instances": instances}])
        return evaluator.evaluate()

    yield evaluate
    for name in names:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


@pytest.fixture()
def masks(tmp_path):
    """A data set of one image with two squares, as polygons."""
    squares = [(8, 8, 24, 24), (36, 30, 60, 62)]
    document = {
        "images": [{"id": 5, "file_name": "5.png", "height": 64, "width": 64}],
        "categories": [{"id": 40, "name": "thing"}],
        "annotations": [
            {"id": i + 1, "image_id": 5, "category_id": 40, "area": (c - a) * (d - b)}
            | {"bbox": [a, b, c - a, d - b], "segmentation": [[a, b, c, b, c, d, a, d]]}
            | {"iscrowd": 0}
            for i, (a, b, c, d) in enumerate(squares)
        ],
    }
    path = tmp_path / "masks.json"
    path.write_text(json.dumps(document))
    register_coco_format(name="engine_masks", json_file=str(path), image_root=str(tmp_path))
    found = Instances((64, 64))
    found.pred_boxes = Boxes(torch.tensor(squares, dtype=torch.float32))
    found.scores, found.pred_classes = torch.tensor([0.9, 0.8]), torch.zeros(2, dtype=torch.int64)
    found.pred_masks = torch.zeros(2, 64, 64, dtype=torch.bool)
    found.pred_masks[0, 8:24, 8:24] = found.pred_masks[1, 30:46, 36:60] = True  # half of the second
    yield "engine_masks", found
    DatasetCatalog.remove("engine_masks")
    MetadataCatalog.remove("engine_masks")


def results_of(evaluator: CocoEvaluator, found: Instances) -> dict:
    evaluator.reset()
    evaluator.process([{"image_id": 5}], [{"instances": found}])
    return evaluator.evaluate()


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools
@pytest.mark.parametrize("backend", ["auto", "pycocotools"])
def test_masks_are_evaluated_as_a_task(masks, backend):
    name, found = masks
    results = results_of(CocoEvaluator(name, tasks=["bbox", "segm"], backend=backend), found)
    assert results["bbox"]["AP"] == pytest.approx(100)
    # The first is found at all 10 thresholds of the IoU, the second only at 0.5.
    assert results["segm"]["AP50"] == pytest.approx(100)
    assert results["segm"]["AP"] == pytest.approx((100 + 9 * 51 / 101 * 100) / 10, abs=0.01)
    assert results_of(CocoEvaluator(name, backend=backend), found).keys() == {"bbox"}
    nothing = results_of(CocoEvaluator(name, tasks=["segm"], backend=backend), found[:0])
    assert nothing["segm"]["AP"] == 0 and "bbox" not in nothing


def test_tasks_without_a_field_for_them_are_refused(masks, dataset):
    name, found = masks
    found.remove("pred_masks")
    with pytest.raises(ConfigError, match="names segm, but the detections have no segmentation"):
        results_of(CocoEvaluator(name, tasks=["segm"]), found)
    with pytest.raises(
        ConfigError, match="keypoints, but 2 of 2 annotations of engine_masks have no"
    ):
        CocoEvaluator(name, tasks=["bbox", "keypoints"])
    with pytest.raises(ConfigError, match="some of bbox, segm, keypoints"):
        CocoEvaluator(name, tasks=["masks"])


CROWD = (0, 0, 60, 60, 1)


@pytest.mark.parametrize(
    "found", [[], [(5, [1, 1, 9, 9], 0.9)]], ids=["no detection", "a detection"]
)
@pytest.mark.parametrize("boxes", [None, [], [CROWD]], ids=["no key", "empty", "only crowds"])
def test_without_objects_there_is_no_ap(evaluated, caplog, boxes, found):
    with caplog.at_level(logging.WARNING, logger="kddetr"):
        results = evaluated(boxes, found)
    assert "so there is no AP" in caplog.text and "AP is 0" not in caplog.text
    assert results == {} if boxes is None else math.isnan(results["bbox"]["AP"])


@pytest.mark.parametrize("backend", ["auto", "pycocotools"])
def test_detections_in_a_crowd_are_not_counted(evaluated, backend):
    truth = [(0, 0, 30, 30, 0), CROWD]
    found = [(5, [0, 0, 30, 30], 0.5), (5, [31, 31, 59, 59], 0.9), (5, [2, 31, 20, 50], 0.8)]
    assert evaluated(truth, found, backend=backend)["bbox"]["AP"] == pytest.approx(100)
    alone = evaluated(truth[:1], found, backend=backend)["bbox"]["AP"]
    assert alone == pytest.approx(100 / 3, abs=0.5)


def test_all_implementations_agree_on_odd_ground_truth(evaluated):
    """Boxes without a size are no objects to find; without the image's size all others are."""
    truth = [(0, 0, 30, 30, 0), (5, 5, 0, 9, 0), (9, 9, 0, 0, 0), (90, 90, 9, 9, 0)]
    found = [(5, [0, 0, 30, 30], 0.9), (9, [1, 1, 9, 9], 0.2)]
    fast, slow = (evaluated(truth, found, backend=b)["bbox"] for b in ("auto", "pycocotools"))
    assert fast["AP"] == pytest.approx(slow["AP"], abs=1e-9)
    assert fast["AP"] == pytest.approx(50, abs=1)


def test_ground_truth_of_an_earlier_run_is_not_reused(tmp_path):
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
        assert evaluator.truth.objects[0]["bbox"][2] == size
    assert not list(tmp_path.iterdir())
