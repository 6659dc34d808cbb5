"""YOLO folders: where images and labels may lie, and what a line means."""

import json

import pytest
from PIL import Image

from kddetr.data import DatasetError, check_dataset, find_data, read_image, register_coco_format
from tests.data.made_folders import SIZE, TRUTH, assert_equal, picture, read, write_yolo

pytestmark = pytest.mark.usefixtures("forget")


@pytest.fixture()
def yolo(tmp_path):
    """A folder with images/train, images/val and labels beside, of several kinds of images."""
    kinds = {"0": ("jpg", "RGB"), "1": ("webp", "RGB"), "2": ("png", "L"), "3": ("PNG", "RGBA")}
    for split in ("train", "val"):
        for name, boxes in TRUTH.items():
            suffix, mode = kinds[name]
            picture(tmp_path / f"data/images/{split}/{name}.{suffix}", mode=mode)
            write_yolo(tmp_path / f"data/labels/{split}/{name}.txt", boxes)
    return tmp_path / "data"


def describe(folder, **keys) -> None:
    # JSON is YAML too.
    content = {"names": ["cat", "dog"], "train": "images/train", "val": "images/val"} | keys
    content = {key: value for key, value in content.items() if value is not None}
    (folder / "data.yaml").write_text(json.dumps(content))


def find(folder):
    return find_data(folder, folder.parent / "work")


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"names": {0: "cat", 1: "dog"}, "test": ""},
        {"train": ["images/train"], "val": "./images/val/"},
        {"train": "../images/train", "val": "../images/val"},  # as Roboflow writes it
        {"path": "images", "train": "train", "val": "val"},
        {"path": "datasets/elsewhere"},  # of another machine
        {"train": "lists/train.txt", "val": None, "validation": "images/val"},
    ],
    ids=str,
)
def test_boxes_are_those_that_are_known(yolo, keys):
    describe(yolo, **keys)
    (yolo / "lists").mkdir()
    lines = [f"../{path.relative_to(yolo)}" for path in sorted((yolo / "images/train").iterdir())]
    (yolo / "lists/train.txt").write_text("\n".join(lines))
    data = find(yolo)
    assert (data.layout, data.classes, data.test) == ("YOLO", ["cat", "dog"], None)
    for split in (data.train, data.val):
        assert_equal(read(split, data), TRUTH)
        name = register_coco_format(json_file=split.json_file, image_root=split.image_root)
        check_dataset(name, for_training=True, for_evaluation=True)


def test_class_names_are_as_they_are_written(yolo):
    """YAML 1.1 takes these for truth values, a number in octal digits and nothing at all."""
    describe(yolo)
    text = "names: [no, on, 010, null]\ntrain: images/train\nval: images/val\n"
    (yolo / "data.yaml").write_text(text)
    assert find(yolo).classes == ["no", "on", "010", "null"]


def test_several_folders_and_images_in_subfolders(yolo):
    for name in TRUTH:
        picture(yolo / f"more/images/deep/er/x{name}.jpg")
        write_yolo(yolo / f"more/labels/deep/er/x{name}.txt", TRUTH[name])
    describe(yolo, train=["images/train", "more/images"])
    data = find(yolo)
    assert_equal(read(data.train, data), TRUTH | {f"x{name}": TRUTH[name] for name in TRUTH})


def test_labels_beside_the_images_and_an_absolute_path(tmp_path):
    for name, boxes in TRUTH.items():
        picture(tmp_path / f"elsewhere/{name}.jpg")
        write_yolo(tmp_path / f"elsewhere/{name}.txt", boxes)
    (tmp_path / "data").mkdir()
    describe(tmp_path / "data", path=str(tmp_path), train="elsewhere", val="elsewhere")
    data = find(tmp_path / "data")
    assert_equal(read(data.val, data), TRUTH)


def test_an_image_without_a_label_file_shows_no_object(yolo):
    describe(yolo)
    (yolo / "labels/train/0.txt").unlink()
    (yolo / "labels/train/1.txt").write_text("\n")
    data = find(yolo)
    assert_equal(read(data.train, data), TRUTH | {"0": [], "1": []})
    assert "1 of the 4 images of the train split have no label file" in data.notes[0]


def test_fractions_are_of_the_upright_image(yolo):
    """A photo that lies on its side in the file: Ultralytics turns it before it looks at labels."""
    picture(yolo / "images/train/0.jpg", size=SIZE[::-1], orientation=6)
    assert Image.open(yolo / "images/train/0.jpg").size == SIZE[::-1]
    assert read_image(str(yolo / "images/train/0.jpg")).shape == (*SIZE[::-1], 3)
    describe(yolo)
    data = find(yolo)
    assert_equal(read(data.train, data), TRUTH)


def test_polygons_become_the_box_around_them_and_keypoints_are_not_read(yolo):
    describe(yolo, kpt_shape=[2, 3])
    lines = ["0 0.1 0.2 0.5 0.1 0.3 0.9", "1.0 0.5 0.5 0.25 0.5 0.1 0.1 2 0.3 0.3 1"]
    (yolo / "labels/train/0.txt").write_text("\n".join(lines))
    data = find(yolo)
    boxes = [("cat", (4, 3, 16, 24)), ("dog", (15, 7.5, 10, 15))]
    assert_equal(read(data.train, data), TRUTH | {"0": boxes})


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("2 0.5 0.5 0.1 0.1", "class is 2, and data.yaml names 0 to 1"),
        ("-1 0.5 0.5 0.1 0.1", "class is -1"),
        ("0.5 0.5 0.5 0.1 0.1", "class is 0.5"),
        ("0 0.5 0.5 0.1", "3 numbers after the class"),
        ("0 0.5 0.5 0.1 0.1 0.9", "5 numbers after the class"),
        ("0 20 15 10 10", "outside of 0 to 1"),
        ("0 nan 0.5 0.1 0.1", "outside of 0 to 1"),
        ("0 0.5 0.5 -0.005 0.1", "negative width"),
        ("cat 0.5 0.5 0.1 0.1", "words that are no numbers"),
    ],
)
def test_lines_that_are_no_boxes_are_refused_with_their_place(yolo, line, message):
    describe(yolo)
    (yolo / "labels/train/0.txt").write_text(f"0 0.5 0.5 0.1 0.1\n{line}\n")
    with pytest.raises(DatasetError, match=rf"train/0.txt, line 2: .*{message}"):
        find(yolo)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"val": "images/missing"}, "names images/missing as its val split, which does not exist"),
        ({"train": "images/missing"}, "as its train split"),
        ({"names": []}, "names no class"),
        ({"kpt_shape": 17}, "kpt_shape must be"),
        ({"train": None, "val": None, "test": "images/missing"}, "names no images"),
        ({"names": {1: "cat", 2: "dog"}}, "number the classes from 0 to 1"),
        ({"val": "images/empty"}, "validation split images/empty .* has no image"),
        ({"val": "images/unlabelled"}, "validation split .* has no box"),
    ],
)
def test_what_data_yaml_gets_wrong_is_said(yolo, keys, message):
    (yolo / "images/empty").mkdir()
    picture(yolo / "images/unlabelled/a.png")
    describe(yolo, **keys)
    with pytest.raises(DatasetError, match=message):
        find(yolo)


def test_a_missing_test_split_and_broken_images_are_noted(yolo):
    describe(yolo, test="images/missing")
    (yolo / "images/train/2.png").write_bytes(b"no image")
    data = find(yolo)
    assert data.test is None and "2" not in read(data.train, data)
    assert any("images/missing, which does not exist" in note for note in data.notes)
    assert any("1 file cannot be opened as an image" in note for note in data.notes)


def test_a_folder_may_have_images_for_validation_alone(yolo):
    describe(yolo, train=None)
    data = find(yolo)
    assert data.train is None and "no training split" in data.notes[-1]
    assert_equal(read(data.val, data), TRUTH)


def test_labels_in_another_encoding_are_refused(yolo):
    describe(yolo)
    (yolo / "labels/train/0.txt").write_bytes(b"0 0.5 0.5 0.1 0.1 \xff")
    with pytest.raises(DatasetError, match=r"0.txt is not text in UTF-8"):
        find(yolo)


def test_label_files_without_data_yaml_ask_for_one(yolo):
    with pytest.raises(DatasetError, match=r"add a data.yaml"):
        find(yolo)
    (yolo / "data.yaml").write_text("names: [cat")
    with pytest.raises(DatasetError, match="is not YAML"):
        find(yolo)
