"""COCO-format folders: read without registration, and every fault in one sentence."""

import re

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from kddetr.data import (
    DatasetError,
    DetectionMapper,
    check_dataset,
    checks,
    dataset_names,
    load_coco_format,
    load_image_folder,
    register_coco_format,
)

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


def test_equals_detectron2s_reading(paths):
    pytest.importorskip("pycocotools")
    from detectron2.data.datasets import load_coco_json

    ours, theirs = load_coco_format(**paths), load_coco_json(*paths.values(), None)
    for mine, reference in zip(ours, theirs):
        assert {k: mine[k] for k in reference if k != "annotations"} == {
            k: v for k, v in reference.items() if k != "annotations"
        }
        assert [a["bbox"] for a in mine["annotations"]] == [
            a["bbox"] for a in reference["annotations"]
        ]


def test_registering_twice_is_harmless_but_not_for_another_file(paths):
    assert register_coco_format(name="mine", **paths) == "mine"
    assert register_coco_format(name="mine", **paths) == "mine"
    with pytest.raises(DatasetError, match="'mine' already belongs to"):
        register_coco_format(name="mine", json_file="other.json", image_root="images")


def test_unlabelled_reading_has_no_annotations(paths):
    assert all("annotations" not in r for r in load_coco_format(labeled=False, **paths))
    assert all("annotations" in r for r in load_coco_format(**paths))


def test_folder_of_images(folder):
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


def _pop(kind, key):
    return lambda document: document[kind][0].pop(key)


def _set(kind, key, value):
    return lambda document: document[kind][0].__setitem__(key, value)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (_pop("annotations", "bbox"), "annotation 1 has no 'bbox'"),
        (_pop("annotations", "category_id"), "annotation 1 has no 'category_id'"),
        (_pop("images", "file_name"), "image 0 has no 'file_name'"),
        (_pop("categories", "id"), "category .* has no 'id'"),
        (_set("annotations", "image_id", 77), "annotation 1: there is no image with id 77"),
        (_set("annotations", "category_id", 77), "no category with id 77"),
        (_set("annotations", "bbox", [1, 2, 3]), "bbox must be four numbers"),
        (_set("annotations", "bbox", [1, 2, 3, "4"]), "bbox must be four numbers"),
        (_set("images", "id", 1), "image id 1 twice"),
        (lambda d: d.pop("categories"), "has no list 'categories'"),
        (lambda d: d.update(images=[], annotations=[]), "lists no image"),
    ],
)
def test_faults_in_the_file(paths, edit, change, sentence):
    edit(change)
    with pytest.raises(DatasetError, match=sentence):
        load_coco_format(**paths)
    with pytest.raises(DatasetError, match=sentence):
        check_dataset(paths["json_file"])


def test_truncated_file(paths, folder):
    path = folder / "instances.json"
    path.write_text(path.read_text()[:-20])
    with pytest.raises(DatasetError, match=r"instances\.json is truncated or not JSON"):
        load_coco_format(**paths)


def test_large_file_is_only_looked_at_where_it_ends(paths, folder, monkeypatch):
    monkeypatch.setattr(checks, "LARGE_FILE", 100)
    name = register_coco_format(**paths)
    MetadataCatalog.get(name).thing_classes = ["early", "late"]
    monkeypatch.setattr(checks, "read_coco_json", None)
    check_dataset(name)
    path = folder / "instances.json"
    path.write_text(path.read_text()[:-20])
    with pytest.raises(DatasetError, match="truncated"):
        check_dataset(name)


def test_a_good_data_set_passes_and_its_classes_are_known(paths):
    name = register_coco_format(**paths)
    check_dataset(name, for_evaluation=True)
    check_dataset([name, name])
    assert MetadataCatalog.get(name).thing_classes == ["early", "late"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (_pop("annotations", "area"), "annotation 1 has no 'area'"),
        (_pop("annotations", "iscrowd"), "annotation 1 has no 'iscrowd'"),
        (_set("annotations", "id", 0), "other than 0"),
        (_set("annotations", "id", 2), "id of its own"),
    ],
)
def test_what_only_evaluation_needs(paths, edit, change, sentence):
    edit(change)
    name = register_coco_format(**paths)
    check_dataset(name)
    with pytest.raises(DatasetError, match=sentence):
        check_dataset(name, for_evaluation=True)


def test_a_file_without_annotations_lists_unlabelled_images(paths, edit):
    edit(lambda document: document.pop("annotations"))
    check_dataset(register_coco_format(**paths), for_evaluation=True)
    assert all("annotations" not in r for r in load_coco_format(**paths))


def test_unknown_name_suggests_close_ones():
    with pytest.raises(DatasetError, match="did you mean coco_2017_val "):
        check_dataset("coco_2017_vall")
    with pytest.raises(DatasetError, match="No data set is named"):
        check_dataset([])


@pytest.mark.parametrize("what", ["json_file", "image_root"])
def test_missing_paths(paths, what):
    name = register_coco_format(**paths | {what: "nowhere/at all"})
    with pytest.raises(DatasetError, match=r"nowhere/at all does not exist.*DETECTRON2_DATASETS"):
        check_dataset(name)
    with pytest.raises(DatasetError, match="does not exist"):
        DatasetCatalog.get(name)
    with pytest.raises(DatasetError, match=f"has no {what}"):
        load_coco_format(**paths | {what: ""})


def test_missing_coco_names_the_variable():
    root = MetadataCatalog.get("coco_2017_val").json_file
    with pytest.raises(DatasetError, match=re.escape(root) + ".*DETECTRON2_DATASETS"):
        check_dataset("coco_2017_val")


def test_first_image_missing(paths, folder):
    (folder / "images/0.png").unlink()
    with pytest.raises(DatasetError, match=r"0\.png does not exist"):
        check_dataset(register_coco_format(**paths))


def test_classes_of_train_and_test_must_agree(paths, folder):
    one = register_coco_format(name="one", **paths)
    other = folder / "other.json"
    other.write_text((folder / "instances.json").read_text().replace("late", "tardy"))
    two = register_coco_format(json_file=str(other), image_root=paths["image_root"], name="two")
    with pytest.raises(DatasetError, match="'one' and 'two' have different classes"):
        check_dataset([one, two])


def test_names_in_a_config(paths):
    from detectron2.config import LazyCall as L
    from detectron2.data import get_detection_dataset_dicts

    assert dataset_names("a") == ["a"]
    assert dataset_names(L(get_detection_dataset_dicts)(names=("a", "b"))) == ["a", "b"]
    assert dataset_names(L(load_coco_format)(**paths)) == [paths["json_file"]]
    assert dataset_names(L(register_coco_format)(name="n", **paths)) == ["n"]
    assert dataset_names(L(load_image_folder)(image_root="x")) == []
    assert dataset_names(None) == []
