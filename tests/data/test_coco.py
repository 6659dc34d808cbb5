"""COCO-format files and image folders are read without registering them in Python code."""

import json
import shutil
from pathlib import Path

import pytest
from detectron2.data import MetadataCatalog
from detectron2.data.datasets import load_coco_json
from PIL import Image

from kddetr.data import (
    DatasetError,
    DetectionMapper,
    check_dataset,
    load_coco_format,
    load_image_folder,
    register_coco_format,
)
from tests.data.changes import every

pytestmark = pytest.mark.usefixtures("forget")


def test_two_paths_are_enough(paths):
    records = load_coco_format(**paths)
    assert [len(r["annotations"]) for r in records] == [2, 2, 0]
    assert [a["category_id"] for a in records[0]["annotations"]] == [1, 0]
    metadata = MetadataCatalog.get(paths["json_file"])
    assert metadata.thing_classes == ["early", "late"]
    assert metadata.thing_dataset_id_to_contiguous_id == {3: 0, 7: 1}
    samples = [DetectionMapper(is_train=True, augmentations=[])(r) for r in records]
    assert [s["instances"].gt_boxes.tensor.tolist() for s in samples] == [
        [[1, 2, 11, 14]],
        [[30, 20, 40, 30]],
        [],
    ]


def test_the_records_are_those_of_detectron2(paths):
    found, expected = load_coco_format(**paths), load_coco_json(*paths.values(), None)
    for ours, theirs in zip(found, expected, strict=True):
        notes, reference = ours.pop("annotations"), theirs.pop("annotations")
        assert ours.items() >= theirs.items()
        assert [note["bbox"] for note in notes] == [note["bbox"] for note in reference]


def test_a_name_can_be_registered_again_for_the_same_file_only(paths):
    assert register_coco_format(name="mine", **paths) == "mine"
    assert register_coco_format(name="mine", **paths) == "mine"
    with pytest.raises(DatasetError, match="'mine' already belongs to"):
        register_coco_format(name="mine", json_file="other.json", image_root="images")


def test_one_file_can_be_used_with_two_image_folders(paths, tmp_path):
    other = tmp_path / "2024"
    shutil.copytree(paths["image_root"], other)
    first = load_coco_format(**paths)
    second = load_coco_format(json_file=paths["json_file"], image_root=str(other))
    assert {Path(r["file_name"]).parent for r in first} == {Path(paths["image_root"])}
    assert {Path(r["file_name"]).parent for r in second} == {other}
    name = register_coco_format(json_file=paths["json_file"], image_root=str(other))
    assert name != register_coco_format(**paths) == paths["json_file"]


def test_unlabelled_reading_has_no_annotations(paths):
    assert all("annotations" not in r for r in load_coco_format(labeled=False, **paths))
    assert all("annotations" in r for r in load_coco_format(**paths))


def test_a_file_without_annotations_lists_unlabelled_images(paths, edit):
    edit(lambda document: document.pop("annotations"))
    check_dataset(register_coco_format(**paths), for_evaluation=True)
    assert all("annotations" not in r for r in load_coco_format(**paths))


def test_a_truncated_file_is_named(paths, folder):
    path = folder / "instances.json"
    path.write_text(path.read_text()[:-20])
    with pytest.raises(DatasetError, match=r"instances\.json is truncated or not JSON"):
        load_coco_format(**paths)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32"])
def test_a_file_in_any_unicode_encoding_is_read(paths, folder, edit, encoding):
    edit(every("categories", name=lambda c: f"é{c['id']}"))
    path = folder / "instances.json"
    document = json.loads(path.read_text())
    path.write_bytes(json.dumps(document, ensure_ascii=False).encode(encoding))
    assert len(load_coco_format(**paths)) == 3
    assert MetadataCatalog.get(paths["json_file"]).thing_classes == ["é3", "é7"]


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        ('{"name": "é"}'.encode("latin-1"), "is not text in UTF-8 .*save it in this encoding"),
        (b"[" * 100_000, "is truncated or not JSON"),
        (b"", "is truncated or not JSON"),
        (b"[]", "has no list 'images'"),
    ],
)
def test_a_file_that_cannot_be_read_is_explained(paths, folder, raw, sentence):
    (folder / "instances.json").write_bytes(raw)
    with pytest.raises(DatasetError, match=sentence):
        load_coco_format(**paths)


def test_images_of_a_folder_are_listed_sorted(folder):
    (folder / "images/deep").mkdir()
    (folder / "images/0.png").rename(folder / "images/deep/0.PNG")
    (folder / "images/notes.txt").write_text("")
    names = [r["file_name"] for r in load_image_folder(image_root=str(folder / "images"))]
    assert [n.rsplit("/", 1)[1] for n in names] == ["1.png", "2.png", "0.PNG"]
    assert load_image_folder(image_root="") == []
    with pytest.raises(DatasetError, match="is not a folder"):
        load_image_folder(image_root=str(folder / "nowhere"))
    (folder / "empty").mkdir()
    with pytest.raises(DatasetError, match="holds no image"):
        load_image_folder(image_root=str(folder / "empty"))


def test_hidden_files_and_folders_with_an_images_name_are_not_listed(tmp_path):
    for name in ("b.png", "._b.png", "folder.png/a.jpg", ".trash/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / name, format="PNG")
    found = [r["file_name"] for r in load_image_folder(image_root=str(tmp_path))]
    assert found == [str(tmp_path / "b.png"), str(tmp_path / "folder.png/a.jpg")]
