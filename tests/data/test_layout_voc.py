"""Pascal VOC folders: where files may lie, where corners begin, and what is refused."""

import pytest

from kddetr.data import (
    DatasetError,
    check_dataset,
    find_data,
    load_coco_format,
    register_coco_format,
)
from tests.data.made_folders import SIZE, TRUTH, assert_equal, picture, read, write_voc

pytestmark = pytest.mark.usefixtures("forget")


def devkit(root, **options):
    """Annotations beside JPEGImages, and lists of the splits."""
    (root / "ImageSets/Main").mkdir(parents=True)
    for split in ("train", "val"):
        for name, boxes in TRUTH.items():
            picture(root / f"JPEGImages/{split}_{name}.jpg")
            write_voc(root / f"Annotations/{split}_{name}.xml", boxes, **options)
        lines = "".join(f"{split}_{name}\n" for name in TRUTH)
        (root / f"ImageSets/Main/{split}.txt").write_text(lines)
        (root / f"ImageSets/Main/cat_{split}.txt").write_text("train_0 1\n")
    (root / "ImageSets/Main/trainval.txt").write_text("train_0\n")
    return root


def flat(root, **options):
    """XML files beside the images, in a folder for each split, as Roboflow exports them."""
    for folder, split in (("train", "train"), ("valid", "val")):
        for name, boxes in TRUTH.items():
            picture(root / f"{folder}/{split}_{name}.png")
            write_voc(root / f"{folder}/{split}_{name}.xml", boxes, **options)
    return root


def find(folder):
    return find_data(folder, folder.parent / "work")


def named(split: str) -> dict:
    return {f"{split}_{name}": boxes for name, boxes in TRUTH.items()}


@pytest.mark.parametrize("first", [1, 0])
@pytest.mark.parametrize("make", [devkit, flat], ids=lambda make: make.__name__)
def test_boxes_are_those_that_are_known(tmp_path, make, first):
    """Corners begin at 1, or at 0 in a folder in which a 0 occurs; one box is the whole image."""
    data = find(make(tmp_path / "data", first=first))
    assert (data.layout, data.classes) == ("Pascal VOC", ["cat", "dog"])
    for split, name in ((data.train, "train"), (data.val, "val")):
        assert_equal(read(split, data), named(name))
        registered = register_coco_format(json_file=split.json_file, image_root=split.image_root)
        check_dataset(registered, for_training=True, for_evaluation=True)
    assert any("from 0" in note for note in data.notes) == (first == 0)


def test_difficult_objects_are_left_out(tmp_path):
    folder = flat(tmp_path / "data")
    write_voc(folder / "train/train_1.xml", TRUTH["1"], extra="<difficult>1</difficult>")
    data = find(folder)
    assert any("1 difficult object is neither" in note for note in data.notes)
    records = load_coco_format(json_file=data.train.json_file, image_root=data.train.image_root)
    assert [note["iscrowd"] for record in records for note in record["annotations"]] == [0, 0, 1, 0]


def test_parts_of_objects_are_no_objects(tmp_path):
    folder = flat(tmp_path / "data")
    part = "<part><name>head</name><bndbox><xmin>2</xmin></bndbox></part>"
    write_voc(folder / "train/train_1.xml", TRUTH["1"], extra=part)
    data = find(folder)
    assert data.classes == ["cat", "dog"]
    assert_equal(read(data.train, data), named("train"))


def test_images_without_a_file_are_left_out_and_folders_inside_are_kept_apart(tmp_path):
    root = tmp_path / "data"
    for name, boxes in TRUTH.items():
        for folder in ("a", "b"):
            picture(root / f"JPEGImages/{folder}/{name}.jpg")
            write_voc(root / f"Annotations/{folder}/{name}.xml", boxes if folder == "a" else [])
    picture(root / "JPEGImages/unlabelled.jpg")
    data = find(root)
    assert any("1 of 9 images have no XML file" in note for note in data.notes)
    boxes = {}
    for split in (data.train, data.val):
        for record in load_coco_format(json_file=split.json_file, image_root=split.image_root):
            folder, name = record["file_name"].split("/")[-2:]
            boxes[folder, name[0]] = len(record["annotations"])
    assert boxes == {(f, n): len(TRUTH[n]) * (f == "a") for n in TRUTH for f in "ab"}


def test_an_image_of_the_name_in_the_file_is_found(tmp_path):
    folder = flat(tmp_path / "data")
    (folder / "train/train_1.png").rename(folder / "train/photo.png")
    path = folder / "train/train_1.xml"
    text = path.read_text().replace("<annotation>", "<annotation><filename>photo.jpg</filename>")
    path.write_text(text)
    data = find(folder)
    assert_equal(
        read(data.train, data),
        {"photo" if key == "train_1" else key: boxes for key, boxes in named("train").items()},
    )


def test_boxes_on_a_turned_photo_are_of_the_upright_image(tmp_path):
    folder = flat(tmp_path / "data")
    picture(folder / "train/train_0.jpg", size=SIZE[::-1], orientation=6)
    (folder / "train/train_0.png").unlink()
    data = find(folder)
    assert_equal(read(data.train, data), named("train"))
    write_voc(folder / "train/train_0.xml", TRUTH["0"], size=SIZE[::-1])  # as it lies in the file
    with pytest.raises(DatasetError, match=r"40 x 30 pixels .*upright"):
        find(folder)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("train/train_0.xml", "<annotation><object>", "is truncated or not XML"),
        ("train/train_0.xml", "<annotation><object/></annotation>", "an object has no name"),
        (
            "train/train_0.xml",
            "<annotation><object><name>cat</name></object></annotation>",
            "no bndbox of four numbers",
        ),
        ("train/train_9.xml", "<annotation></annotation>", "no image of the name train_9"),
    ],
)
def test_broken_files_are_refused_in_a_sentence(tmp_path, name, text, message):
    folder = flat(tmp_path / "data")
    (folder / name).write_text(text)
    with pytest.raises(DatasetError, match=message):
        find(folder)


def test_boxes_that_end_before_they_begin_and_listed_files_that_are_missing(tmp_path):
    folder = devkit(tmp_path / "data")
    (folder / "ImageSets/Main/val.txt").write_text("val_0\nval_7\n")
    with pytest.raises(DatasetError, match=r"1 image without an XML file .*val_7"):
        find(folder)
    folder = flat(tmp_path / "other")
    write_voc(folder / "train/train_0.xml", [("cat", (20, 20, -5, 3))])
    with pytest.raises(DatasetError, match="ends before it begins"):
        find(folder)
