"""Classes matched by name, students by name, and the sizes that follow from the data."""

import json
from unittest.mock import ANY

import pytest
import torch
from omegaconf import OmegaConf

from kddetr.engine import build
from kddetr.errors import UsageError
from kddetr.recipes.amounts import batch_size, iterations, set_image_size
from kddetr.recipes.classes import match_classes, teacher_classes
from kddetr.recipes.students import recipe, set_num_classes, students

CPU = torch.device("cpu")


def test_classes_are_matched_by_name():
    match = match_classes(["Dining Table", "cat", "drone"], ["cat", "dog", "dining_table"])
    assert match.teacher == ["cat", "dog", "Dining Table"]
    assert (match.known, match.unknown) == (["Dining Table", "cat"], ["drone"])
    assert match.renamed == [("Dining Table", "dining_table")]
    assert "learned from labels alone: 1 (drone)" in match.describe()
    assert "without labels never learned: 1 (drone)" in match.describe(labeled=False)


def test_classes_that_are_named_as_the_same():
    match = match_classes(["motorbike"], ["motorcycle", "cat"], {"motorbike": "motorcycle"})
    assert match.teacher == ["motorbike", "cat"] and not match.unknown
    with pytest.raises(UsageError, match="the teacher has no class 'motorcicle'; did you mean"):
        match_classes(["motorbike"], ["motorcycle"], {"motorbike": "motorcicle"})
    with pytest.raises(UsageError, match="knows none of the classes of the data"):
        match_classes(["motorbike"], ["motorcycle"])


def test_what_was_said_comes_before_equal_names_and_these_before_similar_ones():
    """In whatever order the classes are listed."""
    said = match_classes(["van", "lorry"], ["van", "bus"], {"lorry": "van"})
    assert said.teacher == ["lorry", "bus"] and said.unknown == ["van"]
    equal = match_classes(["Red-Disc", "red disc"], ["red disc"])
    assert equal.known == ["red disc"] and equal.unknown == ["Red-Disc"]
    with pytest.raises(UsageError, match="knows none"):  # which of the two, nobody can say
        match_classes(["Red-Disc", "red disc"], ["red_disc"])
    with pytest.raises(UsageError, match="'bus' of the teacher is named for several"):
        match_classes(["van", "lorry"], ["bus"], {"lorry": "bus", "van": "bus"})


def test_a_name_is_not_given_to_two_classes():
    """The data's "cat" is said to be the teacher's "feline", which also has a "cat"."""
    match = match_classes(["cat"], ["cat", "feline"], {"cat": "feline"})
    assert match.teacher == ["cat (of the teacher)", "cat"]


def test_names_of_a_teacher_without_names(tmp_path):
    file = tmp_path / "train.json"
    categories = [{"id": 1, "name": "a"}, {"id": 3, "name": "b"}]
    file.write_text(json.dumps({"images": [], "annotations": [], "categories": categories}))
    assert teacher_classes(str(file), 2) == ["a", "b"]
    # A head of DETR's authors has a row for every id.
    assert teacher_classes(str(file), 4) == ["(unused 0)", "a", "(unused 2)", "b"]
    assert teacher_classes("x, y", 2) == ["x", "y"] and teacher_classes("data", 1, ["z"]) == ["z"]
    with pytest.raises(UsageError, match=r"gives 2 names .* and the teacher has 3"):
        teacher_classes("x,y", 3)


@pytest.mark.parametrize("name", ["dino_r18", "retinanet_r50", "cascade_rcnn_r50"])
def test_a_student_gets_the_heads_of_the_data(name):
    cfg = recipe(name, batch=4)
    set_num_classes(cfg.model, 7)
    with torch.device("meta"):
        assert build(cfg.model).num_classes == 7
    assert cfg.dataloader.train.total_batch_size == cfg.train.batch_scaling.reference == 4


def test_the_rate_of_a_zoo_student_is_that_of_its_file():
    assert recipe("retinanet_r50").optimizer.lr == 0.01
    assert recipe("retinanet_r50", batch=8).optimizer.lr == pytest.approx(0.005)


def test_an_unknown_student_is_refused_with_close_names():
    with pytest.raises(UsageError, match="no student called 'dino_r81'; did you mean dino_r18"):
        recipe("dino_r81")
    assert {"dino_r18", "retinanet_r50"} <= students().keys()
    assert not any(name.startswith("custom") for name in students())


def test_the_length_follows_the_number_of_images():
    assert iterations(90_000, 118_287, 16)[0] == 90_000
    assert iterations(90_000, 118_287 // 4, 16)[0] == pytest.approx(45_000, abs=1)
    assert iterations(10, 1, 1)[0] == 1
    length, why = iterations(90_000, 2_000, 16)  # 92 epochs
    assert length == round(90_000 * (2_000 / 118_287) ** 0.5) and why.startswith("94 epochs of")


def test_few_images_are_seen_a_limited_number_of_times():
    """Unless a recipe itself is longer."""
    assert iterations(90_000, 80, 16)[0] == 300 * 80 / 16
    assert iterations(360_000, 80, 4, epochs=100) == (2000, ANY)
    assert iterations(500 * 118_287, 118_287, 1)[0] == 500 * 118_287


@pytest.mark.parametrize(("gpus", "images", "expected"), [(1, 100, 4), (2, 100, 8), (1, 3, 2)])
def test_the_batch_is_divided_among_processes_and_no_larger_than_the_data(gpus, images, expected):
    assert batch_size(CPU, gpus, images, 800)[0] == expected


def test_image_size_scales_resizing_and_crops():
    loaders = recipe("dino_r18").dataloader
    before = OmegaConf.to_container(loaders.train.mapper.augmentations_with_crop)
    set_image_size(loaders, 400)
    steps = loaders.train.mapper.augmentations_with_crop
    assert loaders.test.mapper.augmentations[0].short_edge_length == 400
    assert loaders.test.mapper.augmentations[0].max_size == 666
    assert [2 * n for n in steps[2].crop_size] == list(before[2]["crop_size"])
    set_image_size(loaders, 0)
    assert [s["_target_"].__name__ for s in loaders.train.mapper.augmentations] == ["RandomFlip"]
    assert loaders.train.mapper.augmentations_with_crop is None
