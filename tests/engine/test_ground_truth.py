"""A perfect detector scores AP 100 on every data set that is accepted, whatever its ids are."""

import json
import random

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Boxes, BoxMode, Instances

from kddetr.data import register_coco_format
from kddetr.engine import CocoEvaluator
from kddetr.engine import evaluation as module
from kddetr.errors import ConfigError, DatasetError

NAME = "engine_truth"
DRAWN = random.Random(0)


@pytest.fixture(autouse=True)
def forget():
    yield
    forget_data_set()


def forget_data_set():
    if NAME in DatasetCatalog.list():
        DatasetCatalog.remove(NAME)
    MetadataCatalog.pop(NAME, None)


def document(images: int = 6, boxes: int = 2) -> dict:
    """Images of 80 x 60 with boxes of two classes that do not overlap, category 7 before 3."""
    notes = [
        {"id": i * boxes + k + 1, "image_id": i, "category_id": 3 if k % 2 else 7, "iscrowd": 0}
        | {"bbox": [2 + 20 * k, 3 + i, 15, 11], "area": 165}
        for i in range(images)
        for k in range(boxes)
    ]
    return {
        "images": [
            {"id": i, "file_name": f"{i}.png", "width": 80, "height": 60} for i in range(images)
        ],
        "annotations": notes,
        "categories": [{"id": 7, "name": "seven"}, {"id": 3, "name": "three"}],
    }


def renamed(tree: dict, kind: str, new: dict) -> dict:
    """The document with other ids of images, categories or annotations."""
    for entry in tree[kind]:
        entry["id"] = new[entry["id"]]
    key = {"images": "image_id", "categories": "category_id"}.get(kind)
    for note in tree["annotations"] if key else ():
        note[key] = new[note[key]]
    return tree


def register(folder, tree: dict) -> str:
    path = folder / "truth.json"
    path.write_text(json.dumps(tree))
    return register_coco_format(name=NAME, json_file=str(path), image_root=str(folder))


def perfect(evaluator: CocoEvaluator, records: list[dict], score: float = 0.9) -> dict:
    """The results of a detector that finds every box of the records and nothing else."""
    evaluator.reset()
    for record in records:
        notes = record["annotations"]
        found = Instances((60, 80))
        boxes = [BoxMode.convert(n["bbox"], n["bbox_mode"], BoxMode.XYXY_ABS) for n in notes]
        found.pred_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
        found.pred_classes = torch.tensor([int(n["category_id"]) for n in notes])
        found.scores = torch.full((len(notes),), score)
        if "masks" in record:
            found.pred_masks = torch.zeros(len(notes), 60, 80, dtype=torch.bool)
            for mask, (x, y, w, h) in zip(found.pred_masks, record["masks"], strict=True):
                mask[y : y + h, x : x + w] = True
        if notes and "keypoints" in notes[0]:
            points = torch.tensor([n["keypoints"] for n in notes], dtype=torch.float32)
            found.pred_keypoints = points.reshape(len(notes), -1, 3)
        evaluator.process([{"image_id": record["image_id"]}], [{"instances": found}])
    return evaluator.evaluate()


IDS = {
    "64 bits": lambda i: 2**63 + i,
    "128 bits": lambda i: DRAWN.getrandbits(127) * 1000 + i,
    "17 digits": lambda i: 20240115103000000 + i,
    "negative": lambda i: -i - 1,
    "text": lambda i: f"id {i:06d}",
    "digits as text": lambda i: str(i),
    "fractions that are whole": lambda i: i + 0.0,
}


@pytest.mark.parametrize("kind", ["images", "categories", "annotations"])
@pytest.mark.parametrize("new", IDS.values(), ids=IDS)
def test_ids_of_any_kind_count_and_are_given_back(tmp_path, kind, new):
    ids = {entry["id"]: new(entry["id"]) for entry in document()[kind]}
    tree = renamed(document(), kind, ids)
    name = register(tmp_path, tree)
    records = DatasetCatalog.get(name)
    evaluator = CocoEvaluator(name, output_dir=str(tmp_path / "found"))
    assert perfect(evaluator, records)["bbox"]["AP"] == pytest.approx(100)
    saved = json.loads((tmp_path / "found/coco_instances_results.json").read_text())
    asked = sorted([n["image_id"], n["category_id"], n["bbox"]] for n in tree["annotations"])
    assert sorted([n["image_id"], n["category_id"], n["bbox"]] for n in saved) == asked


@pytest.mark.parametrize("backend", ["fast", "Detectron2", "pycocotools"])
def test_all_implementations_get_numbers(tmp_path, monkeypatch, backend):
    if backend == "Detectron2":
        try:
            from detectron2 import _C
            from detectron2.evaluation.fast_eval_api import COCOeval_opt

            _C.COCOevalEvaluateImages  # noqa: B018
        except (ImportError, AttributeError):
            pytest.skip("Detectron2 is installed without its compiled operators")
        monkeypatch.setattr(module, "checked_backend", lambda _: (backend, COCOeval_opt))
    tree = document()
    for kind in ("images", "categories", "annotations"):
        tree = renamed(tree, kind, {e["id"]: 2**127 + e["id"] for e in tree[kind]})
    name = register(tmp_path, tree)
    evaluator = CocoEvaluator(name, backend="auto" if backend != "pycocotools" else backend)
    half = DatasetCatalog.get(name)
    assert perfect(evaluator, half)["bbox"]["AP"] == pytest.approx(100)
    for record in half[:3]:
        record["annotations"] = []
    assert perfect(evaluator, half)["bbox"]["AP"] == pytest.approx(50, abs=1)
    some = evaluator.evaluate([record["image_id"] for record in half[3:]])
    assert some["bbox"]["AP"] == pytest.approx(100)


def test_annotation_ids_and_areas_and_crowd_flags_may_be_missing(tmp_path):
    whole = document()
    whole["annotations"][0]["iscrowd"] = 1
    name = register(tmp_path, whole)
    records = DatasetCatalog.get(name)
    expected = perfect(CocoEvaluator(name), records)
    bare = document()
    for note in bare["annotations"]:
        del note["id"], note["area"], note["iscrowd"]
    bare["annotations"][0]["ignore"] = 1
    (tmp_path / "truth.json").write_text(json.dumps(bare))
    found = perfect(CocoEvaluator(name), records)["bbox"]
    assert found == pytest.approx(expected["bbox"], nan_ok=True)
    assert expected["bbox"]["AP"] == pytest.approx(100)


@pytest.mark.parametrize("image_id", [str, np.int64, lambda i: 2**100 + i], ids=["s", "n", "b"])
def test_data_registered_by_a_function(tmp_path, image_id):
    tree = document()
    records = [
        {"file_name": f"{i}.png", "image_id": image_id(i), "height": 60, "width": 80}
        | {
            "annotations": [
                {"bbox": [x, y, x + w, y + h], "bbox_mode": BoxMode.XYXY_ABS}
                | {"category_id": np.int64(n["category_id"] == 7), "ignore": n["id"] == 1}
                for n in tree["annotations"]
                if n["image_id"] == i
                for x, y, w, h in [n["bbox"]]
            ]
        }
        for i in range(6)
    ]
    DatasetCatalog.register(NAME, lambda: records)
    with pytest.raises(DatasetError, match="has no class names"):
        CocoEvaluator(NAME)
    MetadataCatalog.get(NAME).thing_classes = ["three", "seven"]
    evaluator = CocoEvaluator(NAME, output_dir=str(tmp_path))
    assert len(evaluator.truth.objects) == 11  # one of twelve is ignored
    assert perfect(evaluator, records)["bbox"]["AP"] == pytest.approx(100)
    saved = json.loads((tmp_path / "coco_instances_results.json").read_text())
    assert {one["image_id"] for one in saved} == {
        image_id(i) if image_id is not np.int64 else i for i in range(6)
    }


@pytest.mark.parametrize("mode", ["file", "function"])
def test_keypoints(tmp_path, mode):
    tree = document(boxes=1)
    for i, note in enumerate(tree["annotations"]):
        note["keypoints"] = [v for k in range(17) for v in (3 + k / 2, 5 + (i + k) / 3, 2)]
    name = register(tmp_path, tree)
    records = DatasetCatalog.get(name)
    for record in records:  # as Detectron2 reads them: places in the image instead of pixel indices
        points = [n for n in tree["annotations"] if n["image_id"] == record["image_id"]]
        shift = np.tile([0.5, 0.5, 0], 17)
        record["annotations"][0]["keypoints"] = (points[0]["keypoints"] + shift).tolist()
    if mode == "function":
        classes = MetadataCatalog.get(name).thing_classes
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
        DatasetCatalog.register(name, lambda: records)
        MetadataCatalog.get(name).thing_classes = classes
    for _ in range(2):  # a second evaluation reads the same
        results = perfect(CocoEvaluator(name, tasks=["bbox", "keypoints"]), records)
        assert results["bbox"]["AP"] == results["keypoints"]["AP"] == pytest.approx(100)


def test_boxes_that_no_detection_can_find_are_left_out(tmp_path):
    """Training leaves them out too: no area at all, none in the image, or too thin for float32."""
    tree = document()
    for k, box in enumerate([[9, 9, 0, 9], [90, 5, 9, 9], [5, -9, 9, 9], [70, 9, 1e-7, 9]]):
        tree["annotations"].append({"image_id": k, "category_id": 7, "bbox": box})
    name = register(tmp_path, tree)
    evaluator = CocoEvaluator(name)
    assert len(evaluator.truth.objects) == 12
    records = DatasetCatalog.get(name)
    assert len(records[0]["annotations"]) == 3  # which the detector answers too
    assert perfect(evaluator, records)["bbox"]["AP"] == pytest.approx(100)
    for record in records:
        del record["annotations"][2:]
    assert perfect(evaluator, records)["bbox"]["AP"] == pytest.approx(100)


def test_more_objects_than_coco_counts(tmp_path):
    tree = document(images=1, boxes=0)
    for k in range(120):
        box = [6 * (k % 12), 6 * (k // 12), 5, 5]
        tree["annotations"].append({"image_id": 0, "category_id": 7, "bbox": box})
    name = register(tmp_path, tree)
    with pytest.raises(ConfigError, match=r"120 objects of one class.*max_dets_per_image=120"):
        CocoEvaluator(name)
    records = DatasetCatalog.get(name)
    more = perfect(CocoEvaluator(name, max_dets_per_image=120), records)
    assert more["bbox"]["AP"] == pytest.approx(100)
    usual = perfect(CocoEvaluator(name, max_dets_per_image=100), records)
    assert usual["bbox"]["AP"] == pytest.approx(100 * 84 / 101)  # recall 100 / 120


def test_several_categories_may_be_one_class(tmp_path):
    name = register(tmp_path, document())
    records = DatasetCatalog.get(name)
    MetadataCatalog.remove(name)
    MetadataCatalog.get(name).set(
        json_file=str(tmp_path / "truth.json"),
        thing_classes=["all"],
        thing_dataset_id_to_contiguous_id={3: 0, 7: 0},
    )
    for record in records:
        for note in record["annotations"]:
            note["category_id"] = 0
    assert perfect(CocoEvaluator(name), records)["bbox"]["AP"] == pytest.approx(100)


def test_detections_of_something_else_are_refused(tmp_path):
    name = register(tmp_path, document())
    evaluator, records = CocoEvaluator(name), DatasetCatalog.get(name)
    with pytest.raises(ConfigError, match=f"id 'x'.*'{NAME}' of the evaluator does not have"):
        perfect(evaluator, [records[0] | {"image_id": "x"}])
    records[0]["annotations"][0]["category_id"] = 2
    with pytest.raises(ConfigError, match=r"class 2, counted from 0, .* has 2 classes"):
        perfect(evaluator, records)


def test_images_that_are_not_read_are_counted(tmp_path, caplog):
    name = register(tmp_path, document())
    perfect(CocoEvaluator(name), DatasetCatalog.get(name)[:4])
    assert "2 images of engine_truth that have objects were not read" in caplog.text


def squares(size=(60, 80)) -> dict:
    """The document with a mask for each box: a polygon, or in the last image run lengths."""
    tree = document()
    for note in tree["annotations"]:
        x, y, w, h = note["bbox"]
        mask = np.zeros(size, dtype=np.uint8, order="F")
        mask[y : y + h, x : x + w] = 1
        runs = np.diff(np.flatnonzero(np.diff(mask.T.ravel(), prepend=0, append=0)), prepend=0)
        whole = [*runs.tolist(), int(mask.size - runs.sum())]
        note["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h], [x, y, x, y]]
        if note["image_id"] == 5:
            note["segmentation"] = {"size": list(size), "counts": whole}
    return tree


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools
@pytest.mark.parametrize("backend", ["auto", "pycocotools"])
def test_masks_as_polygons_and_as_run_lengths(tmp_path, backend):
    tree = renamed(squares(), "images", {i: f"image {i}" for i in range(6)})
    name = register(tmp_path, tree)
    evaluator = CocoEvaluator(name, tasks="segm", backend=backend)
    for record in (records := DatasetCatalog.get(name)):
        record["masks"] = [n["bbox"] for n in record["annotations"]]
    assert perfect(evaluator, records)["segm"]["AP"] == pytest.approx(100)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t["images"][2].pop("width"), "images of engine_truth have no height and width"),
        (lambda t: t["annotations"][-1]["segmentation"]["size"].reverse(), "or not those of their"),
        (lambda t: t["annotations"][0].update(segmentation=[]), "1 of 12 .* have no segmentation"),
        (lambda t: t["annotations"][0].update(segmentation=[[1, 2, 3, 4]]), "have no segmentation"),
    ],
)
def test_masks_that_the_metric_cannot_read_are_refused(tmp_path, change, words):
    tree = squares()
    change(tree)
    name = register(tmp_path, tree)
    CocoEvaluator(name)
    with pytest.raises(ConfigError, match=words):
        CocoEvaluator(name, tasks=["segm"])


NO_OUTLINES = [5, "abc", True, {}, [None], [{}], [1, 2, 3, 4, 5, 6], [["1"] * 6], [[None] * 6]]
NO_OUTLINES += [[[1, 2, 3, 4, 5, 6, 7]], [[[1, 2], [3, 4], [5, 6]]], [[float("nan")] * 6]]
NO_OUTLINES += [{"counts": "x"}, {"counts": [1, 2], "size": [60, 80]}, {"counts": [], "size": "a"}]


@pytest.mark.parametrize("mode", ["file", "function"])
@pytest.mark.parametrize(
    ("field", "task", "values"),
    [
        ("segmentation", "segm", NO_OUTLINES),
        ("keypoints", "keypoints", [5, "abc", True, {}, [1, 2], [None] * 51, ["a"] * 51, [[1], 2]]),
    ],
)
def test_what_is_no_mask_or_keypoints_counts_as_missing(tmp_path, mode, field, task, values):
    tree = document(images=len(values))
    for i, value in enumerate(values):
        tree["annotations"][2 * i][field] = value
    name = register(tmp_path, tree)
    records = DatasetCatalog.get(name)
    if mode == "function":
        classes = MetadataCatalog.get(name).thing_classes
        for i, value in enumerate(values):
            records[i]["annotations"][0][field] = value
        forget_data_set()
        DatasetCatalog.register(name, lambda: records)
        MetadataCatalog.get(name).thing_classes = classes
    evaluator = CocoEvaluator(name)
    assert len(evaluator.truth.objects) == 2 * len(values)
    bare = [r | {"annotations": [without(n, field) for n in r["annotations"]]} for r in records]
    assert perfect(evaluator, bare)["bbox"]["AP"] == pytest.approx(100)
    count = 2 * len(values)
    with pytest.raises(ConfigError, match=f"names {task}, but {count} of {count} annotations"):
        CocoEvaluator(name, tasks=[task])


def without(note: dict, field: str) -> dict:
    return {key: value for key, value in note.items() if key != field}


def test_keypoints_of_another_number_are_refused(tmp_path):
    tree = document()
    for note in tree["annotations"]:
        note["keypoints"] = [1, 2, 2] * 5
    with pytest.raises(ConfigError, match="17 points"):
        CocoEvaluator(register(tmp_path, tree), tasks=["keypoints"])
