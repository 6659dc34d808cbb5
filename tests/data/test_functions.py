"""Data sets that a function of the user registers are looked at before training as files are."""

from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode

from kddetr.data import DatasetError, check_dataset, register_coco_format
from tests.data.changes import every

pytestmark = pytest.mark.usefixtures("forget")


@pytest.fixture()
def records(folder) -> list[dict]:
    def note(box: list[int], category: int) -> dict:
        return {"bbox": box, "bbox_mode": BoxMode.XYWH_ABS, "category_id": category}

    return [
        {
            "file_name": str(folder / f"images/{i}.png"),
            "image_id": i,
            "height": 30,
            "width": 40,
            "annotations": [note([1 + i, 2, 10, 12], 0), note([5, 5, 4, 4], 1)],
        }
        for i in range(3)
    ]


@pytest.fixture()
def register(records):
    """Registers the records as "mine"; keyword arguments are metadata."""

    def do(function=None, **metadata):
        DatasetCatalog.register("mine", function or (lambda: records))
        MetadataCatalog.get("mine").set(**{"thing_classes": ["a", "b"], **metadata})

    return do


def check() -> None:
    check_dataset("mine", for_training=True)
    check_dataset("mine", for_evaluation=True)


def test_a_sound_data_set_passes_unchanged(register, records):
    expected = [dict(r) for r in records]
    register()
    check()
    assert [{**r, "annotations": None} for r in DatasetCatalog.get("mine")] == [
        {**r, "annotations": None} for r in expected
    ]


def put_note(key, value):
    return lambda r: r[1]["annotations"][0].__setitem__(key, value)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda r: r.clear(), "its function returns no image"),
        (lambda r: r[1].pop("file_name"), "record 1 needs a 'file_name'"),
        (lambda r: r[1].update(file_name=r[0]["file_name"]), "images 0 and 1 are the same file"),
        (lambda r: r[1].pop("image_id"), "record 1 .* has no 'image_id'"),
        (lambda r: [x.update(image_id=7) for x in r], "image id 7 twice"),
        (lambda r: r[0].update(image_id="x"), "all numbers or all strings"),
        (lambda r: r[1].update(image_id=True), "image True: an id must be a number or a string"),
        (lambda r: r[1].update(height=0), "record 1: height must be a number of pixels, not 0"),
        (lambda r: r[1].update(width=41), r"1\.png is 40 x 30.*says 41 x 30"),
        (lambda r: r[1].update(annotations=None), "'annotations' must be a list"),
        (lambda r: r[1].pop("annotations"), "1 of 3 records have no 'annotations'"),
        (lambda r: [x.pop("annotations") for x in r], "no box to learn from"),
        (lambda r: r[1]["annotations"].__setitem__(0, 3), "annotation 0: it must be a dict"),
        (lambda r: r[1]["annotations"][0].pop("bbox_mode"), "has no 'bbox_mode'.*XYWH_ABS"),
        (put_note("bbox_mode", BoxMode.XYWH_REL), "bbox_mode must be BoxMode.XYWH_ABS or"),
        (put_note("bbox", [1, 2, 3, 4, 90]), "bbox must be four numbers"),
        (put_note("bbox", [1, 2, 3, float("nan")]), "not finite"),
        (put_note("bbox", [1, 2, -3, 4]), "negative width or height"),
        (put_note("category_id", 2), "category_id is 2: .* must number the classes from 0 to 1"),
        (put_note("category_id", -1), "category_id is -1"),
        (put_note("category_id", "a"), "category_id must be a whole number, not 'a'"),
        (put_note("ignore", "no"), "ignore must be 0 or 1"),
    ],
)
def test_an_invalid_record_is_named(register, records, change, sentence):
    change(records)
    register()
    with pytest.raises(DatasetError, match=sentence):
        check()


@pytest.mark.parametrize(
    ("metadata", "sentence"),
    [
        ({"thing_classes": None}, r"has no classes: set their names with .*thing_classes"),
        ({"thing_classes": "ab"}, "thing_classes in its metadata must be a list of names"),
        ({"thing_classes": [1, 2]}, "thing_classes in its metadata must be names, not 1"),
        ({"thing_classes": ["a", "a"]}, "two categories named 'a'"),
        ({"thing_dataset_id_to_contiguous_id": {1: 1, 2: 2}}, "for the 2 classes from 0 to 1"),
        ({"json_file": "no/file.json"}, r"no/file\.json does not exist"),
    ],
)
def test_invalid_metadata_are_named(register, metadata, sentence):
    register(**metadata)
    with pytest.raises(DatasetError, match=sentence):
        check()


def test_numbers_of_numpy_and_torch_are_pythons(register, records):
    for i, record in enumerate(records):
        record.update(image_id=np.int64(i), width=np.int32(40), file_name=Path(record["file_name"]))
        for note in record["annotations"]:
            note.update(bbox=np.array(note["bbox"]), category_id=torch.tensor(note["category_id"]))
            note["iscrowd"] = np.bool_(False)
    register()
    check()
    found = DatasetCatalog.get("mine")[1]
    assert found["image_id"] == 1 and type(found["image_id"]) is int
    assert found["annotations"][1] == {
        "bbox": [5, 5, 4, 4],
        "bbox_mode": BoxMode.XYWH_ABS,
        "category_id": 1,
        "iscrowd": 0,
    }


def test_text_ids_and_missing_sizes_are_accepted(register, records):
    for record in records:
        record["image_id"] = f"img_{record['image_id']}"
        del record["height"], record["width"]
    register()
    check()


@pytest.mark.parametrize("evaluator_type", ["pascal_voc", "lvis"])
def test_data_with_another_evaluator_are_looked_at_too(register, records, evaluator_type):
    records[0]["annotations"][0]["category_id"] = 9
    register(evaluator_type=evaluator_type)
    with pytest.raises(DatasetError, match="category_id is 9"):
        check()


def test_corners_are_compared_as_corners(register, records):
    for record in records:
        record["annotations"] = [
            {"bbox": [20 + i, 10, 39, 29], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0}
            for i in range(5)
        ]
    register()
    check()
    for record in records:
        for note in record["annotations"]:
            note["bbox_mode"] = BoxMode.XYWH_ABS
    register_again = DatasetCatalog.pop("mine"), DatasetCatalog.register("mine", lambda: records)
    assert register_again
    with pytest.raises(DatasetError, match="look like corners"):
        check()


def test_a_function_that_fails_is_named_with_its_line(register):
    def broken():
        raise KeyError("width")

    register(broken)
    with pytest.raises(DatasetError, match=r"'mine' fails with KeyError: 'width' \(.*test_funct"):
        check()
    DatasetCatalog.pop("mine")
    register(lambda: __import__("no_such_reader"))
    with pytest.raises(DatasetError, match=r"No module named 'no_such_reader' .*: install what it"):
        check()
    DatasetCatalog.pop("mine")
    register(lambda: iter([]))
    with pytest.raises(DatasetError, match="must return a list of dicts"):
        check()


def test_the_file_that_the_metric_reads_must_be_about_the_same_images(register, records, paths):
    register(json_file=paths["json_file"], thing_classes=["early", "late"])
    check()
    records.pop()
    DatasetCatalog.pop("mine")
    DatasetCatalog.register("mine", lambda: records)
    with pytest.raises(DatasetError, match="returns 2 images, but the metric reads"):
        check()


def test_classes_of_that_file_must_be_those_registered(register, paths):
    register(json_file=paths["json_file"])
    with pytest.raises(DatasetError, match="0 is 'a' in the metadata and 'early' in the file"):
        check()


def test_own_data_under_a_name_of_cocos_are_refused(paths, edit, monkeypatch):
    """As when $DETECTRON2_DATASETS/coco holds one's own files under COCO's file names."""
    name = register_coco_format(**paths)
    MetadataCatalog.get(name).thing_classes = ["person", "bicycle"]
    with pytest.raises(DatasetError, match="'person' in the metadata and 'early' in"):
        check_dataset(name)
    edit(every("categories", name=lambda c: {3: "person", 7: "bicycle"}[c["id"]]))
    MetadataCatalog.get(name).thing_dataset_id_to_contiguous_id = {1: 0, 2: 1}
    with pytest.raises(DatasetError, match="with other ids; give your data a name of its own"):
        check_dataset(name)
