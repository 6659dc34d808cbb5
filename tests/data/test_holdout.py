"""The validation split that is taken from the training images."""

import shutil
from pathlib import Path

import pytest

from kddetr.data import DatasetError, find_data
from tests.data.made_folders import picture, read, write_coco

pytestmark = pytest.mark.usefixtures("forget")


@pytest.fixture()
def pictures(tmp_path):
    """A function that makes a folder of n pictures, the first two with a class of their own, and
    returns the names of training and of validation.
    """

    def make(number: int, **options) -> tuple[set[str], set[str]]:
        folder = tmp_path / "data"
        truth = {}
        for i in range(number):
            truth[f"{i:03}"] = [("dog" if i < 2 else "cat", (1, 2, 3, 4))]
            if not (folder / f"{i:03}.png").exists():
                picture(folder / f"{i:03}.png", size=(4, 6), seed=i)
        copies = sorted(path.stem for path in folder.glob("*.png") if path.stem not in truth)
        truth |= {name: [("cat", (1, 2, 3, 4))] for name in copies}
        write_coco(folder / "labels.json", truth, width=4, height=6)
        data = find_data(folder, tmp_path / "work", **options)
        return {*read(data.train, data)}, {*read(data.val, data)}

    make.folder = tmp_path / "data"
    return make


def test_a_share_is_taken_and_said(pictures, tmp_path):
    train, val = pictures(100)
    assert not train & val and len(train | val) == 100
    assert 6 <= len(val) <= 34  # 100 draws of probability 0.2: 20 +- 3.5 standard deviations
    assert pictures(100, seed=1)[1] != val
    assert len(pictures(100, val_share=0.5)[1]) > len(val)
    (note,) = find_data(pictures.folder, tmp_path / "work").notes
    assert f"{len(val)} of the 100 training images were taken" in note


def test_more_images_change_no_side(pictures):
    train, val = pictures(60)
    more_train, more_val = pictures(90)
    assert train <= more_train and val <= more_val


def test_a_smaller_share_is_a_part_of_a_larger_one(pictures):
    assert pictures(60, val_share=0.1)[1] <= pictures(60, val_share=0.3)[1]


def test_copies_stay_together(pictures):
    folder: Path = pictures.folder
    folder.mkdir()
    for i in range(2, 22):
        picture(folder / f"{i:03}.png", size=(4, 6), seed=i)
        shutil.copy(folder / f"{i:03}.png", folder / f"copy of {i:03}.png")
        for kind in ("ab", "cd"):
            picture(folder / f"r{i}_jpg.rf.{kind}{i}.png", size=(4, 6))
    train, val = pictures(22, val_share=0.4)
    for i in range(2, 22):
        assert (f"{i:03}" in val) == (f"copy of {i:03}" in val)
        assert (f"r{i}_jpg.rf.ab{i}" in val) == (f"r{i}_jpg.rf.cd{i}" in val)
    assert any("copy" in name for name in val) and any("copy" in name for name in train)
    assert any(".rf." in name for name in val) and any(".rf." in name for name in train)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("share", [0.5, 0.99])
def test_every_class_is_on_both_sides(pictures, seed, share):
    train, val = pictures(6, seed=seed, val_share=share)
    for own in ({"000", "001"}, {f"{i:03}" for i in range(2, 6)}):
        assert train & own and val & own


def test_a_small_share_stays_small_and_takes_no_class_from_training(pictures):
    for seed in range(4):
        train, val = pictures(6, seed=seed, val_share=0.01)
        assert len(val) == 1 and train & {"000", "001"}


def test_one_picture_cannot_be_divided(pictures):
    with pytest.raises(DatasetError, match="cannot be taken from it"):
        pictures(1)


def test_a_share_that_is_none_is_refused(tmp_path):
    with pytest.raises(ValueError, match="val_share"):
        find_data(tmp_path, tmp_path / "work", val_share=1)


@pytest.mark.parametrize("owners", [{"0": ["cat", "dog"], "1": ["cat"]}, {"0": ["cat"]}])
def test_few_pictures_with_objects(tmp_path, owners):
    """The only dog is trained on, and both sides have an object, where there are two with some."""
    folder, box = tmp_path / "data", (1, 2, 3, 4)
    truth = {name: [(kind, box) for kind in owners.get(name, [])] for name in "01234"}
    for i, name in enumerate(truth):
        picture(folder / f"{name}.png", size=(4, 6), seed=i)
    write_coco(folder / "labels.json", truth, width=4, height=6)
    for seed in range(12):
        if len(owners) < 2:
            with pytest.raises(DatasetError, match="only 1 of its pictures has objects"):
                find_data(folder, tmp_path / "work", seed=seed)
            continue
        data = find_data(folder, tmp_path / "work", seed=seed)
        assert "0" in read(data.train, data) and "1" in read(data.val, data)
