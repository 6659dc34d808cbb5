"""COCO's format in the folders that COCO, Roboflow, FiftyOne, CVAT and others export."""

import json
import os
from pathlib import Path

import pytest

from kddetr.data import DatasetError, check_dataset, find_data, register_coco_format
from tests.data.made_folders import TRUTH, assert_equal, picture, read, write_coco

pytestmark = pytest.mark.usefixtures("forget")


def contents(folder: Path) -> dict:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def coco(root: Path) -> Path:
    for split in ("train2017", "val2017"):
        for name in TRUTH:
            picture(root / split / f"{name}.png")
        write_coco(root / f"annotations/instances_{split}.json", TRUTH)
        (root / f"annotations/captions_{split}.json").write_text('{"images": [], "categories": []}')
    return root


def roboflow(root: Path) -> Path:
    for split in ("train", "valid", "test"):
        for name in TRUTH:
            picture(root / split / f"{name}.png")
        parent = {"id": 0, "name": "pets", "supercategory": "none"}
        path = write_coco(root / split / "_annotations.coco.json", TRUTH, more=[parent])
        document = json.loads(path.read_text())
        for one in document["categories"][1:]:
            one["supercategory"] = "pets"
        path.write_text(json.dumps(document))
    return root


def fiftyone(root: Path) -> Path:
    for split in ("train", "validation"):
        for name in TRUTH:
            picture(root / split / "data" / f"{name}.png")
        write_coco(root / split / "labels.json", TRUTH)
    return root


def cvat(root: Path) -> Path:
    for split in ("Train", "Validation"):
        for name in TRUTH:
            picture(root / f"images/{split}/{name}.png")
        write_coco(root / f"annotations/instances_{split}.json", TRUTH)
    return root


@pytest.mark.parametrize("make", [coco, roboflow, fiftyone, cvat], ids=lambda make: make.__name__)
def test_exports_are_read_as_they_are(tmp_path, make):
    folder = make(tmp_path / "data")
    before = contents(folder)
    data = find_data(folder, tmp_path / "work")
    assert data.layout == "COCO" and data.classes == ["cat", "dog"]
    assert (data.test is not None) == (make is roboflow)
    for split in (data.train, data.val):
        assert_equal(read(split, data), TRUTH)
        name = register_coco_format(json_file=split.json_file, image_root=split.image_root)
        check_dataset(name, for_training=True, for_evaluation=True)
    assert contents(folder) == before


@pytest.mark.parametrize("make", [coco, fiftyone, cvat], ids=lambda make: make.__name__)
def test_a_file_that_can_be_used_is_not_copied(tmp_path, make):
    data = find_data(make(tmp_path / "data"), tmp_path / "work")
    assert data.train.json_file.startswith(str(tmp_path / "data"))
    assert not (tmp_path / "work").exists() and data.notes == []


@pytest.mark.parametrize(
    ("labels", "images", "inside"),
    [
        ("labels.json", "data", ""),  # FiftyOne
        ("annotations/instances_default.json", "images", "sub/"),  # CVAT
        ("_annotations.coco.json", ".", ""),  # Roboflow
        ("deep/er/export.json", "else/where", ""),
    ],
)
def test_one_file_alone_is_divided(tmp_path, labels, images, inside):
    for name in TRUTH:
        picture(tmp_path / f"data/{images}/{inside}{name}.png")
    write_coco(tmp_path / "data" / labels, {f"{inside}{name}": b for name, b in TRUTH.items()})
    data = find_data(tmp_path / "data", tmp_path / "work")
    assert data.train.image_root == str((tmp_path / "data" / images).resolve())
    assert_equal({**read(data.train, data), **read(data.val, data)}, TRUTH)


def test_the_parent_class_of_roboflow_is_left_out_and_said(tmp_path):
    data = find_data(roboflow(tmp_path / "data"), tmp_path / "work")
    (note,) = data.notes
    assert "'pets'" in note and "parent" in note
    # It stays where it has a box.
    for split in ("train", "valid", "test"):
        path = tmp_path / "data" / split / "_annotations.coco.json"
        document = json.loads(path.read_text())
        document["annotations"][0]["category_id"] = 0
        path.write_text(json.dumps(document))
    data = find_data(tmp_path / "data", tmp_path / "work")
    assert data.classes == ["pets", "cat", "dog"] and data.notes == []


def test_a_class_of_id_0_that_is_no_parent_stays(tmp_path):
    picture(tmp_path / "data/a.png")
    picture(tmp_path / "data/b.png")
    truth = {"a": [("dog", (1, 2, 3, 4))], "b": [("dog", (1, 2, 3, 4))]}
    write_coco(tmp_path / "data/a.json", truth, ids={"cat": 0, "dog": 5})
    assert find_data(tmp_path / "data", tmp_path / "work").classes == ["cat", "dog"]


@pytest.mark.parametrize("number", [1, 200])
def test_any_number_of_classes_and_ids_with_gaps(tmp_path, number):
    names = [f"class {i:03}" for i in range(number)]
    # Two images, each with a box of every class.
    truth = {key: [(name, (1, 2, 3, 4)) for name in names] for key in "ab"}
    for name in truth:
        picture(tmp_path / f"data/{name}.png", size=(40, 30))
    ids = {name: 7 + 3 * i for i, name in enumerate(names)}
    write_coco(tmp_path / "data/labels.json", truth, ids=ids)
    data = find_data(tmp_path / "data", tmp_path / "work")
    assert data.classes == names
    assert_equal({**read(data.train, data), **read(data.val, data)}, truth)


def test_images_anywhere_are_found_by_their_names(tmp_path):
    """File names with folders of another machine, as labelling servers write them."""
    for name, folder in zip(TRUTH, ("a", "a/deep", "b", ".")):
        picture(tmp_path / "data" / folder / f"{name}.png")
    write_coco(tmp_path / "data/export/result.json", {f"upload/7/{n}": b for n, b in TRUTH.items()})
    write_coco(tmp_path / "data/export/val.json", {"upload/7/0": TRUTH["0"]})
    data = find_data(tmp_path / "data", tmp_path / "work")
    assert_equal(read(data.train, data), TRUTH)
    assert any("found by their names" in note for note in data.notes)
    picture(tmp_path / "data/b/0.png")
    with pytest.raises(DatasetError, match="several times"):
        find_data(tmp_path / "data", tmp_path / "work")


def test_equal_names_in_several_folders_are_told_apart_by_the_split(tmp_path):
    data = find_data(coco(tmp_path / "data"), tmp_path / "work")
    assert data.train.image_root.endswith("train2017") and data.val.image_root.endswith("val2017")
    picture(tmp_path / "data/train_backup/0.png")
    for name in TRUTH:
        picture(tmp_path / f"data/train_backup/{name}.png")
    with pytest.raises(DatasetError, match=r"are in .* and in .*keep one"):
        find_data(tmp_path / "data", tmp_path / "work")


def test_a_split_may_use_the_image_folder_of_another(tmp_path):
    folder = coco(tmp_path / "data")
    (folder / "val2017").rename(tmp_path / "elsewhere")
    data = find_data(folder, tmp_path / "work")
    assert data.val.image_root.endswith("train2017")


def test_splits_with_different_classes_get_the_same(tmp_path):
    folder = fiftyone(tmp_path / "data")
    write_coco(folder / "validation/labels.json", {"3": TRUTH["3"]}, ids={"cat": 4, "bird": 2})
    data = find_data(folder, tmp_path / "work")
    assert data.classes == ["cat", "dog", "bird"] and "matched by name" in data.notes[0]
    assert_equal(read(data.train, data), TRUTH)
    assert_equal(read(data.val, data), {"3": TRUTH["3"]})


def test_the_same_folder_gives_the_same_files_from_anywhere(tmp_path, monkeypatch):
    folder = roboflow(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    first = find_data("data", "work")
    stamps = [os.stat(split.json_file).st_mtime_ns for split in (first.train, first.val)]
    monkeypatch.chdir(folder)
    assert find_data(".", "../work") == first
    assert stamps == [os.stat(s.json_file).st_mtime_ns for s in (first.train, first.val)]
    assert all(os.path.isabs(p) for p in (first.train.json_file, first.train.image_root))


def test_a_file_may_be_named_instead_of_its_folder(tmp_path):
    folder = coco(tmp_path / "data")
    write_coco(folder / "annotations/instances_train_small.json", {"0": TRUTH["0"]})
    with pytest.raises(DatasetError, match="both seem to be its train split"):
        find_data(folder, tmp_path / "work")
    data = find_data(folder / "annotations/instances_val2017.json", tmp_path / "work")
    assert_equal({**read(data.train, data), **read(data.val, data)}, TRUTH)
    assert data.train.image_root.endswith("val2017")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: write_coco(d / "validation/labels.json", {}), "validation split .* no image"),
        (lambda d: write_coco(d / "validation/labels.json", {"2": []}), "validation .* no box"),
        (lambda d: write_coco(d / "train/labels.json", {"2": []}), "training split .* no box"),
        (lambda d: (d / "train/data/1.png").unlink(), "image 1.png cannot be found below"),
        (lambda d: (d / "train/labels.json").write_text('{"images": [], "categories": '), "trunc"),
        (lambda d: write_coco(d / "train/labels.json", {"0": [("cat", (1, 1, -3, 3))]}), "negat"),
    ],
)  # fmt: skip
def test_broken_folders_are_refused_in_a_sentence(tmp_path, change, message):
    folder = fiftyone(tmp_path / "data")
    change(folder)
    with pytest.raises(DatasetError, match=message):
        find_data(folder, tmp_path / "work")
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize("split", ["train2017", "val2017"])
def test_a_file_that_was_cut_off_is_not_passed_over(tmp_path, split):
    """Its categories, at the end, are gone; the other split alone would be used in silence."""
    file = coco(tmp_path / "data") / f"annotations/instances_{split}.json"
    file.write_text(file.read_text().partition('"categories"')[0])
    with pytest.raises(DatasetError, match=f"instances_{split}.json is truncated or not JSON"):
        find_data(tmp_path / "data", tmp_path / "work")


def test_what_is_no_layout_is_refused_with_what_was_found(tmp_path):
    work = tmp_path / "work"
    with pytest.raises(DatasetError, match="There is no folder"):
        find_data(tmp_path / "nowhere", work)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match=r"looked for JSON .* found no file at all"):
        find_data(tmp_path / "empty", work)
    picture(tmp_path / "images/a.png")
    with pytest.raises(DatasetError, match=r"found 1 .png files; .*--unlabeled"):
        find_data(tmp_path / "images", work)
    (tmp_path / "a.zip").write_bytes(b"PK")
    with pytest.raises(DatasetError, match="unpack it"):
        find_data(tmp_path / "a.zip", work)
    folder = fiftyone(tmp_path / "data")
    with pytest.raises(DatasetError, match="inside of your data folder"):
        find_data(folder, folder / "work")
    (folder / "data.yaml").write_text("names: [cat, dog]\ntrain: train\n")
    with pytest.raises(DatasetError, match=r"several data sets: COCO .* and YOLO"):
        find_data(folder, work)
