"""Data sets are checked before training, and class names are known after the check."""

import json
import logging
import re

import numpy as np
import pytest
from detectron2.config import LazyCall as L
from detectron2.data import DatasetCatalog, MetadataCatalog, get_detection_dataset_dicts

from kddetr.data import (
    DatasetError,
    check_dataset,
    dataset_names,
    load_coco_format,
    load_image_folder,
    register_coco_format,
    registered,
    warn_of_shared_images,
)
from tests.data.changes import every, replace_boxes

pytestmark = pytest.mark.usefixtures("forget")


def test_a_good_data_set_passes_and_its_classes_are_known(paths):
    name = register_coco_format(**paths)
    check_dataset(name, for_evaluation=True)
    check_dataset([name, name])
    assert MetadataCatalog.get(name).thing_classes == ["early", "late"]


def test_an_unknown_name_is_refused_with_close_names():
    with pytest.raises(DatasetError, match="did you mean coco_2017_val "):
        check_dataset("coco_2017_vall")
    with pytest.raises(DatasetError, match=r"'qqqqqqqq'; check the spelling\. Your own"):
        check_dataset("qqqqqqqq")
    with pytest.raises(DatasetError, match="No data set is named"):
        check_dataset([])


@pytest.mark.parametrize("what", ["json_file", "image_root"])
def test_missing_paths_are_refused(paths, what):
    name = register_coco_format(**paths | {what: "nowhere/at all"})
    with pytest.raises(DatasetError, match=r"nowhere/at all does not exist.*relative to") as error:
        check_dataset(name)
    assert "DETECTRON2_DATASETS" not in str(error.value)  # which has no effect on own data
    with pytest.raises(DatasetError, match="does not exist"):
        DatasetCatalog.get(name)
    with pytest.raises(DatasetError, match=f"has no {what}"):
        load_coco_format(**paths | {what: ""})


def test_missing_coco_names_the_variable():
    root = MetadataCatalog.get("coco_2017_val").json_file
    with pytest.raises(DatasetError, match=re.escape(root) + ".*DETECTRON2_DATASETS"):
        check_dataset("coco_2017_val")


def test_missing_images_are_named_and_counted(paths, folder):
    name = register_coco_format(**paths)
    (folder / "images/1.png").unlink()
    with pytest.raises(DatasetError, match=r"1\.png does not exist: correct the image folder"):
        check_dataset(name)
    (folder / "images/2.png").unlink()
    with pytest.raises(DatasetError, match=r"1\.png and 1 more of its 3 images do not exist"):
        check_dataset(name)


def test_classes_of_train_and_test_must_agree(paths, folder):
    one = register_coco_format(name="one", **paths)
    other = folder / "other.json"
    other.write_text((folder / "instances.json").read_text().replace("late", "tardy"))
    two = register_coco_format(json_file=str(other), image_root=paths["image_root"], name="two")
    with pytest.raises(DatasetError, match="'one' and 'two' have different classes"):
        check_dataset([one, two])


def test_classes_are_needed_where_labels_are(paths, edit):
    edit(lambda d: d.update(categories=[], annotations=[]))
    assert len(load_coco_format(labeled=False, **paths)) == 3
    check_dataset(paths["json_file"])
    for use in ("for_training", "for_evaluation"):
        with pytest.raises(DatasetError, match="names no category"):
            check_dataset(paths["json_file"], **{use: True})


@pytest.mark.parametrize("boxes", ["no annotations", "no boxes", "crowds alone", "no size"])
def test_training_data_without_a_box_to_learn_from_is_refused(paths, edit, boxes):
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


def test_one_of_two_training_sets_may_have_no_boxes(paths, folder):
    boxes = register_coco_format(**paths)
    document = json.loads((folder / "instances.json").read_text()) | {"annotations": []}
    (folder / "empty.json").write_text(json.dumps(document))
    empty = register_coco_format(**paths | {"json_file": str(folder / "empty.json")})
    with pytest.raises(DatasetError, match="no box to learn from"):
        check_dataset(empty, for_training=True)
    check_dataset([boxes, empty], for_training=True)


def test_corners_and_fractions_are_refused(paths, edit):
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 0.7, (20, 2))
    size = rng.uniform(0.1, 0.3, (20, 2))
    scale = np.array([40, 30])
    edit(replace_boxes(np.hstack([low * scale, size * scale]).tolist()))
    load_coco_format(**paths)
    check_dataset(paths["json_file"], for_training=True)
    edit(replace_boxes(np.hstack([low * scale, (low + size) * scale]).tolist()))
    with pytest.raises(DatasetError, match=r"x0, y0, x1, y1.*write x, y, width, height"):
        check_dataset(paths["json_file"], for_training=True)
    edit(replace_boxes(np.hstack([low, size]).tolist()))
    with pytest.raises(DatasetError, match=r"fractions.*pixels"):
        check_dataset(paths["json_file"], for_evaluation=True)
    check_dataset(paths["json_file"])  # as unlabelled images, whose boxes are not used


def test_boxes_outside_and_without_size_are_counted_in_warnings(paths, edit, caplog):
    caplog.set_level(logging.WARNING, logger="kddetr")
    good, beyond = [5, 5, 10, 10], [35, 5, 10, 10]
    edit(replace_boxes([good] * 9))
    load_coco_format(**paths)
    check_dataset(paths["json_file"], for_training=True)
    assert not caplog.records
    edit(replace_boxes([good] * 9 + [[5, 5, 0, 9], [50, 5, 9, 9], [-9, 5, 9, 9], beyond]))
    check_dataset(paths["json_file"], for_training=True)
    assert "3 of 13 boxes have no area in their image" in caplog.text
    assert "1 of 13 boxes reach beyond" in caplog.text


def test_an_unchanged_file_is_read_once(paths, edit, monkeypatch, caplog):
    name = register_coco_format(**paths)
    check_dataset(name, for_training=True)
    assert "1 of 3 boxes have no area" in caplog.text
    caplog.clear()
    with monkeypatch.context() as patch:
        patch.setattr(registered, "read_coco_json", None)
        check_dataset(name, for_training=True)
    assert "1 of 3 boxes have no area" in caplog.text
    edit(every("annotations", iscrowd=1))
    with pytest.raises(DatasetError, match="no box to learn from"):
        check_dataset(name, for_training=True)


def test_images_that_are_trained_and_tested_on_are_warned_of(paths, folder, caplog):
    one = register_coco_format(**paths)
    (folder / "other.json").write_text((folder / "instances.json").read_text())
    root = f"{paths['image_root']}/../images"
    two = register_coco_format(json_file=str(folder / "other.json"), image_root=root)
    check_dataset([one, two])
    warn_of_shared_images([one], [])
    assert not caplog.records
    warn_of_shared_images([one], [two])
    assert "3 of the test images are training images too" in caplog.text


def test_names_in_a_config(paths):
    assert dataset_names("a") == ["a"]
    assert dataset_names(L(get_detection_dataset_dicts)(names=("a", "b"))) == ["a", "b"]
    assert dataset_names(L(load_coco_format)(**paths)) == [paths["json_file"]]
    assert dataset_names(L(register_coco_format)(name="n", **paths)) == ["n"]
    assert dataset_names(L(load_image_folder)(image_root="x")) == []
    assert dataset_names(None) == []
