"""Boxes that a file tells readers to ignore are left out as crowds are, whoever reads the file."""

import logging

import pytest
from detectron2.data import DatasetCatalog, get_detection_dataset_dicts
from detectron2.data.datasets import load_coco_json, register_coco_instances
from detectron2.structures import BoxMode

from kddetr.data import (
    DatasetError,
    DetectionMapper,
    check_dataset,
    dataset_names,
    is_left_out,
    load_coco_format,
)
from tests.data.changes import every, put, replace_boxes

pytestmark = pytest.mark.usefixtures("forget")
BOXES = [[1, 2, 10, 12], [3, 4, 5, 6], [7, 8, 9, 10]]


def learned(records: list[dict]) -> list[list[float]]:
    """The boxes that training sees."""
    mapper = DetectionMapper(is_train=True, augmentations=[])
    return [box for r in records for box in mapper(r)["instances"].gt_boxes.tensor.tolist()]


@pytest.mark.parametrize("flag", [1, True, 1.0])
def test_ignored_boxes_are_no_objects(paths, edit, flag, caplog):
    caplog.set_level(logging.INFO, logger="kddetr")
    edit(replace_boxes(BOXES))
    edit(put("annotations", "ignore", flag))
    records = load_coco_format(**paths)
    assert [a["iscrowd"] for a in records[0]["annotations"]] == [1, 0, 0]
    assert learned(records) == [[3, 4, 8, 10], [7, 8, 16, 18]]
    assert "1 of 3 boxes say ignore" in caplog.text


@pytest.mark.parametrize("flag", [0, False, None])
def test_boxes_that_are_not_ignored_stay(paths, edit, flag):
    edit(replace_boxes(BOXES))
    edit(every("annotations", ignore=flag))
    assert len(learned(load_coco_format(**paths))) == 3


@pytest.mark.parametrize("flag", ["1", 2, [1], float("nan"), "yes"])
def test_other_values_are_refused(paths, edit, flag):
    edit(put("annotations", "ignore", flag))
    with pytest.raises(DatasetError, match="annotation 1: ignore must be 0 or 1"):
        load_coco_format(**paths)


def test_data_of_ignored_boxes_alone_have_nothing_to_learn(paths, edit):
    edit(every("annotations", ignore=1))
    load_coco_format(**paths)
    with pytest.raises(DatasetError, match="no box to learn from"):
        check_dataset(paths["json_file"], for_training=True)


def test_a_file_registered_with_detectron2_is_read_too(paths, edit, caplog):
    """Detectron2's own reader stops at it with an assertion."""
    caplog.set_level(logging.INFO, logger="kddetr")
    edit(replace_boxes(BOXES))
    edit(put("annotations", "ignore", 1))
    with pytest.raises(AssertionError):
        load_coco_json(*paths.values())
    register_coco_instances("mine", {}, *paths.values())
    check_dataset("mine", for_training=True)
    assert learned(get_detection_dataset_dicts("mine", filter_empty=False)) == [
        [3, 4, 8, 10],
        [7, 8, 16, 18],
    ]
    assert "Detectron2's reader stops at" in caplog.text


@pytest.mark.parametrize("change", ["byte order mark", "no annotation id", "no size"])
def test_what_detectron2_stops_at_else_is_read_too(paths, edit, folder, change):
    path = folder / "instances.json"
    if change == "byte order mark":
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    elif change == "no size":
        edit(lambda document: document["images"][0].pop("height"))
    else:
        edit(lambda document: document["annotations"][0].pop("id"))
    register_coco_instances("mine", {}, *paths.values())
    with pytest.raises(Exception):  # noqa: B017
        DatasetCatalog.get("mine")
    assert dataset_names("mine") == ["mine"]  # names of a config get the checked reader
    assert DatasetCatalog.get("mine") == load_coco_format(**paths)


@pytest.mark.parametrize("outline", [[[1, 2, 3, 4]], [[1, 2, 3, 4, 5, 6, 7]], [[[1, 2]] * 3], "x"])
def test_boxes_that_detectron2_would_leave_out_are_refused(paths, edit, outline):
    """It leaves out boxes of which no polygon has three points; the metric would count them."""
    edit(lambda document: document["annotations"][0].update(segmentation=outline))
    before = len(learned(load_coco_format(**paths)))
    register_coco_instances("mine", {}, *paths.values())
    assert len(learned(DatasetCatalog.get("mine"))) == before - 1
    with pytest.raises(DatasetError, match=r"annotation 1: no polygon .* 1 such annotations out: "):
        check_dataset("mine", for_training=True)
    edit(lambda document: document["annotations"][0].update(segmentation=[]))
    check_dataset("mine", for_training=True)
    assert len(learned(DatasetCatalog.get("mine"))) == before


def test_a_sound_file_is_read_by_detectron2(paths):
    register_coco_instances("mine", {}, *paths.values())
    expected = DatasetCatalog.get("mine")
    check_dataset("mine", for_training=True)
    assert DatasetCatalog.get("mine") == expected


def test_a_flag_in_records_of_a_function_is_honoured(folder):
    note = {"bbox": [1, 2, 3, 4], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0}
    record = {
        "file_name": str(folder / "images/0.png"),
        "annotations": [note, {**note, "ignore": 1}],
    }
    assert len(learned([record])) == 1
    assert [is_left_out(n) for n in record["annotations"]] == [False, True]
    assert is_left_out({"iscrowd": 1})
