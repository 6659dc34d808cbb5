"""The bundled data: reproducible, made once, and with nothing shared between splits."""

import json

import cv2
import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from kddetr.data import DatasetError, check_dataset
from kddetr.quickstart import digits as drawing
from kddetr.quickstart import make_quickstart_data, register_quickstart
from kddetr.quickstart.digits import PHOTOGRAPHS, QuickstartSpec, render_image, split_digits


def _pixels(root):
    return [cv2.imread(str(p)).tobytes() for p in sorted(root.rglob("*.png"))]


def test_same_spec_same_bytes(spec, quickstart, tmp_path):
    again = make_quickstart_data(tmp_path / "again", spec=spec, progress=False)
    for name in ("train", "train_labeled", "train_unlabeled", "val", "test"):
        assert (again / f"{name}.json").read_bytes() == (quickstart / f"{name}.json").read_bytes()
    assert _pixels(again) == _pixels(quickstart)


def test_an_image_does_not_depend_on_the_others(quickstart):
    image, objects = render_image(QuickstartSpec(), "train", 7)
    assert np.array_equal(cv2.imread(str(quickstart / "train/000007.png"))[:, :, ::-1], image)
    assert not np.array_equal(render_image(QuickstartSpec(seed=1), "train", 7)[0], image)
    assert objects


def test_splits_share_no_digit_and_no_photograph(spec, quickstart):
    owned = {split: set(indices) for split, indices in split_digits(spec).items()}
    assert [len(v) for v in owned.values()] == [1097, 300, 400]
    assert (
        not owned["train"] & owned["val"]
        | owned["train"] & owned["test"]
        | owned["val"] & owned["test"]
    )
    for split, own in owned.items():
        notes = json.loads((quickstart / f"{split}.json").read_text())["annotations"]
        assert {n["digit"] for n in notes} <= own
    photographs = [photo for photos in PHOTOGRAPHS.values() for photo in photos]
    assert len(photographs) == len(set(photographs)) == 17


def test_every_photograph_comes_inside_a_wheel():
    for photos in PHOTOGRAPHS.values():
        for photo in photos:
            assert min(drawing._photograph(*photo).shape[:2]) >= 128


def test_digits_equal_those_of_scikit_learn():
    from sklearn.datasets import load_digits

    images, labels = drawing._digits()
    assert np.array_equal(images * 16, load_digits().images)
    assert np.array_equal(labels, load_digits().target)


def test_labelled_and_unlabelled_parts(spec, quickstart):
    whole, labeled, rest = (
        json.loads((quickstart / f"{n}.json").read_text())
        for n in ("train", "train_labeled", "train_unlabeled")
    )
    assert labeled["images"] + rest["images"] == whole["images"]
    assert len(labeled["images"]) == spec.labeled
    assert rest["annotations"] == []
    assert labeled["annotations"] == [
        a for a in whole["annotations"] if a["image_id"] <= spec.labeled
    ]


def test_boxes_are_inside_and_hardly_overlap():
    for index in range(30):
        _, objects = render_image(QuickstartSpec(), "train", index)
        assert 1 <= len(objects) <= 8
        for i, thing in enumerate(objects):
            x0, y0, x1, y1 = thing["box"]
            assert 0 <= x0 < x1 <= 128 and 0 <= y0 < y1 <= 128
            assert all(drawing._overlap(thing["box"], o["box"]) <= 0.15 for o in objects[:i])


def test_boxes_are_tight(monkeypatch):
    """The pixels that pasting changes lie in the box and touch its four sides."""
    spec = QuickstartSpec(noise_sigma=0.0, per_image=(1, 1))
    image, (thing,) = render_image(spec, "val", 3)
    monkeypatch.setattr(drawing, "_paste", lambda *args: None)
    bare, _ = render_image(spec, "val", 3)
    rows, columns = (np.flatnonzero((image != bare).any((axis, 2))) for axis in (1, 0))
    x0, y0, x1, y1 = thing["box"]
    assert (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1) == pytest.approx(
        (x0, y0, x1, y1), abs=1
    )


def test_second_call_does_nothing_and_a_broken_folder_is_remade(tmp_path):
    spec = QuickstartSpec(images=(3, 1, 1), labeled=1)
    root = make_quickstart_data(tmp_path / "q", spec=spec, progress=False)
    stamp = (root / "spec.json").stat().st_mtime_ns
    make_quickstart_data(root, spec=spec, progress=False)
    assert (root / "spec.json").stat().st_mtime_ns == stamp
    (root / "train/000001.png").unlink()
    make_quickstart_data(root, spec=spec, progress=False)
    assert (root / "train/000001.png").is_file()
    make_quickstart_data(
        root, spec=QuickstartSpec(seed=3, images=(2, 1, 1), labeled=1), progress=False
    )
    assert len(list(root.glob("train/*.png"))) == 2
    assert [p.name for p in tmp_path.iterdir()] == ["q"]


def test_foreign_files_are_never_removed(spec, tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(FileExistsError, match=r"thesis\.tex"):
        make_quickstart_data(tmp_path, spec=spec, progress=False)
    assert (tmp_path / "thesis.tex").exists()


def test_registered_names(registered, quickstart):
    register_quickstart(quickstart)  # twice is harmless
    assert [len(DatasetCatalog.get(n)) for n in registered] == [12, 5, 7, 4, 4]
    assert all("annotations" not in r for r in DatasetCatalog.get("quickstart_train_unlabeled"))
    assert MetadataCatalog.get("quickstart_val").thing_classes == list("0123456789")
    check_dataset(registered, for_evaluation=True)


def test_missing_data_says_how_to_make_it(registered, quickstart, tmp_path):
    for name in registered:
        DatasetCatalog.pop(name)
        MetadataCatalog.pop(name)
    register_quickstart(tmp_path)
    with pytest.raises(DatasetError, match=r"tools/make_quickstart_data\.py"):
        check_dataset("quickstart_val")
    with pytest.raises(DatasetError, match=r"tools/make_quickstart_data\.py"):
        DatasetCatalog.get("quickstart_val")
