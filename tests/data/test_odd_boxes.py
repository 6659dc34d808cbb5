"""Boxes and entries that are not as they should be: dropped where that is sane, else a sentence."""

import logging

import numpy as np
import pytest
from detectron2.data import transforms as T
from detectron2.structures import BoxMode
from PIL import Image

from kddetr.data import DatasetError, DetectionMapper, check_dataset, load_coco_format

pytestmark = pytest.mark.usefixtures("forget")


def put(kind: str, key: str, value):
    """A change of the first entry of a list."""
    return lambda document: document[kind][0].__setitem__(key, value)


def every(kind: str, **values):
    """A change of all entries of a list; a callable gets the entry."""

    def change(document):
        for entry in document[kind]:
            entry.update({k: v(entry) if callable(v) else v for k, v in values.items()})

    return change


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (put("annotations", "bbox", [float("nan"), 1, 2, 3]), "annotation 1: .*not finite"),
        (put("annotations", "bbox", [0, 0, float("inf"), 3]), "annotation 1: .*not finite"),
        (put("annotations", "bbox", [9, 9, -3, 4]), "annotation 1: .*negative width or height"),
        (put("annotations", "bbox", None), "bbox must be four numbers"),
        (put("annotations", "bbox", [True, 1, 2, 3]), "bbox must be four numbers"),
        (put("annotations", "iscrowd", "0"), "iscrowd must be 0 or 1, not '0'"),
        (put("annotations", "image_id", "0"), "no image with id '0'"),
        (put("annotations", "image_id", [0]), r"no image with id \[0\]"),
        (put("annotations", "category_id", [7]), r"no category with id \[7\]"),
        (lambda d: d["annotations"].append(None), "annotation None is not an object"),
        (lambda d: d.update(images=["0.png"]), "image '0.png' is not an object"),
        (lambda d: d.update(categories=["late"]), "category 'late' is not an object"),
        (put("images", "file_name", None), "image 0: file_name must be a text, not None"),
        (put("images", "width", "40"), "image 0: width must be a positive number of pixels"),
        (put("images", "height", 0), "image 0: height must be a positive number of pixels"),
        (put("images", "id", "x"), "the ids of images must be all numbers or all texts"),
        (put("images", "id", [1]), r"image \[1\]: an id must be a number or a text"),
        (put("categories", "id", "x"), "the ids of categories must be all numbers or all texts"),
        (put("categories", "id", 3), "category id 3 twice"),
    ],
)
def test_what_no_box_or_entry_can_be(paths, edit, change, sentence):
    edit(change)
    with pytest.raises(DatasetError, match=sentence):
        load_coco_format(**paths)
    with pytest.raises(DatasetError, match=sentence):
        check_dataset(paths["json_file"])


def test_sizes_and_names_that_are_null_count_as_missing(paths, edit):
    edit(every("images", width=None, height=None))
    edit(every("categories", name=None))
    first = load_coco_format(**paths)[0]
    assert "width" not in first and "height" not in first
    sample = DetectionMapper(is_train=True, augmentations=[])(first)
    assert (sample["height"], sample["width"]) == (30, 40)
    check_dataset(paths["json_file"])


def test_classes_are_needed_where_labels_are(paths, edit):
    edit(lambda d: d.update(categories=[], annotations=[]))
    assert len(load_coco_format(labeled=False, **paths)) == 3
    check_dataset(paths["json_file"])
    for use in ("for_training", "for_evaluation"):
        with pytest.raises(DatasetError, match="names no category"):
            check_dataset(paths["json_file"], **{use: True})


def test_ids_may_be_texts_where_nothing_is_evaluated(paths, edit):
    edit(every("images", id=lambda e: str(e["id"])))
    edit(every("annotations", image_id=lambda e: str(e["image_id"])))
    assert [len(r["annotations"]) for r in load_coco_format(**paths)] == [2, 2, 0]
    check_dataset(paths["json_file"])
    with pytest.raises(DatasetError, match=r"evaluation, image '0'.* id .* whole number"):
        check_dataset(paths["json_file"], for_evaluation=True)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (every("annotations", id=lambda e: str(e["id"])), "annotation '1'.* id .* whole number"),
        (every("annotations", id=lambda e: e["id"] + 0.0), "annotation 1.0.* id .* whole number"),
        (every("annotations", id=lambda e: -e["id"]), "number them from 1"),
        (every("annotations", image_id=lambda e: e["image_id"] + 0.0), "image_id .* whole number"),
        (every("categories", id=lambda e: e["id"] + 0.0), "category 7.0.* id .* whole number"),
        (put("annotations", "area", "12"), "annotation 1.* area .* positive number"),
        (put("annotations", "area", float("nan")), "annotation 1.* area .* positive number"),
    ],
)
def test_numbers_that_coco_metric_would_misread(paths, edit, change, sentence):
    """The fast implementation gives AP 0 for ids that are texts, fractions or negative."""
    edit(change)
    load_coco_format(**paths)
    check_dataset(paths["json_file"])
    with pytest.raises(DatasetError, match=sentence):
        check_dataset(paths["json_file"], for_evaluation=True)


@pytest.mark.parametrize("boxes", ["no annotations", "no boxes", "crowds alone", "no size"])
def test_nothing_to_learn_from_is_said_before_training(paths, edit, boxes):
    edit(
        {
            "no annotations": lambda d: d.pop("annotations"),
            "no boxes": lambda d: d.update(annotations=[]),
            "crowds alone": every("annotations", iscrowd=1),
            "no size": every("annotations", bbox=[3, 3, 0, 5]),
        }[boxes]
    )
    name = paths["json_file"]
    load_coco_format(**paths)
    check_dataset(name)  # as images without labels
    check_dataset(name, for_evaluation=True)
    with pytest.raises(DatasetError, match=r"no box to learn from.*unlabeled"):
        check_dataset(name, for_training=True)


def test_one_of_two_data_sets_may_be_background_alone(paths, edit, folder):
    both = [paths["json_file"], str(folder / "background.json")]
    load_coco_format(**paths)
    edit(lambda d: d.update(annotations=[]))
    (folder / "instances.json").rename(folder / "background.json")
    load_coco_format(json_file=both[1], image_root=paths["image_root"])
    with pytest.raises(DatasetError, match="no box to learn from"):
        check_dataset(both[1], for_training=True)
    text = (folder / "background.json").read_text()
    (folder / "instances.json").write_text(text.replace('"annotations": []', ONE_BOX))
    check_dataset(both, for_training=True)


ONE_BOX = '"annotations": [{"image_id": 0, "category_id": 7, "bbox": [1, 1, 9, 9]}]'


def _boxes(boxes):
    notes = [
        {"id": i + 1, "image_id": 0, "category_id": 7, "bbox": box, "area": 1.0, "iscrowd": 0}
        for i, box in enumerate(boxes)
    ]
    return lambda document: document.update(annotations=notes)


def test_corners_given_as_sizes_and_fractions_as_pixels(paths, edit):
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 0.7, (20, 2))
    size = rng.uniform(0.1, 0.3, (20, 2))
    scale = np.array([40, 30])
    right = np.hstack([low * scale, size * scale])
    edit(_boxes(right.tolist()))
    load_coco_format(**paths)
    check_dataset(paths["json_file"], for_training=True)
    corners = np.hstack([low * scale, (low + size) * scale])
    edit(_boxes(corners.tolist()))
    with pytest.raises(DatasetError, match=r"x0, y0, x1, y1.*write x, y, width, height"):
        check_dataset(paths["json_file"], for_training=True)
    edit(_boxes(np.hstack([low, size]).tolist()))
    with pytest.raises(DatasetError, match=r"fractions.*pixels"):
        check_dataset(paths["json_file"], for_evaluation=True)
    check_dataset(paths["json_file"])  # labels that nobody uses are nobody's concern


def test_boxes_outside_and_without_size_are_counted(paths, edit, caplog):
    caplog.set_level(logging.WARNING, logger="kddetr")
    good, beyond = [5, 5, 10, 10], [35, 5, 10, 10]
    edit(_boxes([good] * 9))
    load_coco_format(**paths)
    check_dataset(paths["json_file"], for_training=True)
    assert not caplog.records
    edit(_boxes([good] * 9 + [[5, 5, 0, 9], [50, 5, 9, 9], [-9, 5, 9, 9], beyond]))
    check_dataset(paths["json_file"], for_training=True)
    assert "3 of 13 boxes have no area in their image" in caplog.text
    assert "1 of 13 boxes reach beyond" in caplog.text


def test_mapper_drops_negative_sizes_whatever_the_augmentation(tmp_path):
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    note = {"bbox": [9, 9, -3, 4], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0}
    record = {"file_name": str(tmp_path / "a.png"), "annotations": [note]}
    for augmentations in ([], [T.RandomFlip(prob=1.0)], [T.Resize((60, 80))]):
        mapper = DetectionMapper(is_train=True, augmentations=augmentations)
        assert len(mapper(record)["instances"]) == 0
    for value in (float("nan"), float("inf")):
        note["bbox"] = [value, 1, 2, 3]
        with pytest.raises(DatasetError, match=r"a\.png has a box that is not finite"):
            DetectionMapper(is_train=True, augmentations=[])(record)


def test_crowds_and_clipped_boxes_through_crop_and_flip(tmp_path):
    """Whatever the boxes were, those of a sample lie in its image and have a size."""
    rng = np.random.default_rng(0)
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    boxes = np.hstack([rng.uniform(-60, 60, (50, 2)), rng.uniform(0, 60, (50, 2))]).round(-1)
    notes = [
        {"bbox": b, "bbox_mode": BoxMode.XYWH_ABS, "category_id": i, "iscrowd": i % 2}
        for i, b in enumerate(boxes.tolist())
    ]
    record = {"file_name": str(tmp_path / "a.png"), "annotations": notes}
    crop = [T.RandomFlip(), T.RandomCrop("absolute_range", (10, 20)), T.Resize((24, 32))]
    mapper = DetectionMapper(is_train=True, augmentations=crop, augmentations_with_crop=crop)
    for _ in range(20):
        found = mapper(record)["instances"]
        height, width = found.image_size
        x0, y0, x1, y1 = found.gt_boxes.tensor.unbind(1)
        assert (x0 >= 0).all() and (y0 >= 0).all() and (x1 <= width).all() and (y1 <= height).all()
        assert (x1 > x0).all() and (y1 > y0).all() and not (found.gt_classes % 2).any()
