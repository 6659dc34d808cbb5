"""Every invalid entry of a COCO file is refused in a sentence that names it."""

import pytest

from kddetr.data import (
    DatasetError,
    DetectionMapper,
    check_dataset,
    load_coco_format,
)
from tests.data.changes import every, put, remove

pytestmark = pytest.mark.usefixtures("forget")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (remove("annotations", "bbox"), "annotation 1 has no 'bbox'"),
        (remove("annotations", "category_id"), "annotation 1 has no 'category_id'"),
        (put("annotations", "image_id", 77), "annotation 1: there is no image with id 77"),
        (put("annotations", "image_id", "0"), "no image with id '0'"),
        (put("annotations", "image_id", [0]), r"no image with id \[0\]"),
        (put("annotations", "category_id", 77), "no category with id 77"),
        (put("annotations", "category_id", [7]), r"no category with id \[7\]"),
        (put("annotations", "bbox", None), "bbox must be four numbers"),
        (put("annotations", "bbox", [1, 2, 3]), "bbox must be four numbers"),
        (put("annotations", "bbox", [1, 2, 3, "4"]), "bbox must be four numbers"),
        (put("annotations", "bbox", [True, 1, 2, 3]), "bbox must be four numbers"),
        (put("annotations", "bbox", [float("nan"), 1, 2, 3]), "annotation 1: .*not finite"),
        (put("annotations", "bbox", [0, 0, float("inf"), 3]), "annotation 1: .*not finite"),
        (put("annotations", "bbox", [9, 9, -3, 4]), "annotation 1: .*negative width or height"),
        (put("annotations", "bbox", [10**400, 1, 2, 3]), "annotation 1: .*too large"),
        (put("annotations", "bbox", [1e300, 1, 2, 3]), "annotation 1: .*too large"),
        (put("annotations", "image_id", False), "no image with id False"),
        (put("annotations", "category_id", True), "no category with id True"),
        (put("annotations", "iscrowd", "0"), "iscrowd must be 0 or 1, not '0'"),
        (put("images", "width", 40.5), "image 0: width must be a positive number of pixels"),
        (put("images", "height", 10**400), "image 0: height must be a positive number of pixels"),
        (put("images", "id", True), "image True: an id must be a number or a string"),
        (put("images", "id", float("nan")), "image nan: an id must be a number or a string"),
        (
            put("categories", "name", "early"),
            "two categories named 'early': merge them, rename one, or",
        ),
        (put("categories", "name", ["late"]), r"name of a category must be a string, not \['late'"),
        (lambda d: d["annotations"].append(None), "annotation None is not an object"),
        (remove("images", "file_name"), "image 0 has no 'file_name'"),
        (put("images", "file_name", None), "image 0: file_name must be a string, not None"),
        (put("images", "file_name", "\ud800.png"), r"file_name must be a string, not '\\ud800"),
        (put("images", "id", "\ud800"), r"image '\\ud800': an id must be"),
        (put("categories", "name", "\ud800"), r"name '\\ud800' cannot be written in UTF-8"),
        (put("images", "width", "40"), "image 0: width must be a positive number of pixels"),
        (put("images", "height", 0), "image 0: height must be a positive number of pixels"),
        (put("images", "id", 1), "image id 1 twice"),
        (put("images", "id", "x"), "the ids of images must be all numbers or all strings"),
        (put("images", "id", [1]), r"image \[1\]: an id must be a number or a string"),
        (lambda d: d.update(images=["0.png"]), "image '0.png' is not an object"),
        (lambda d: d.update(images=[], annotations=[]), "lists no image"),
        (remove("categories", "id"), "category .* has no 'id'"),
        (put("categories", "id", "x"), "the ids of categories must be all numbers or all strings"),
        (put("categories", "id", 3), "category id 3 twice"),
        (lambda d: d.update(categories=["late"]), "category 'late' is not an object"),
        (lambda d: d.pop("categories"), "has no list 'categories'"),
    ],
)
def test_an_invalid_entry_is_named_by_the_reader_and_by_the_check(paths, edit, change, sentence):
    edit(change)
    with pytest.raises(DatasetError, match=sentence):
        load_coco_format(**paths)
    with pytest.raises(DatasetError, match=sentence):
        check_dataset(paths["json_file"])


@pytest.mark.parametrize("area", ["12", float("nan"), -1, True])
def test_an_area_that_is_no_number_is_refused_for_evaluation(paths, edit, area):
    edit(put("annotations", "area", area))
    load_coco_format(**paths)
    check_dataset(paths["json_file"])
    with pytest.raises(DatasetError, match=r"annotation 1.* area .* finite number, 0 or more"):
        check_dataset(paths["json_file"], for_evaluation=True)


@pytest.mark.parametrize(
    "change",
    [
        remove("annotations", "area"),
        remove("annotations", "iscrowd"),
        put("annotations", "id", 2),  # twice
        every("annotations", id=lambda e: str(e["id"])),
        every("annotations", id=lambda e: -e["id"]),
        every("annotations", image_id=lambda e: e["image_id"] + 0.0),
        every("categories", id=lambda e: e["id"] + 0.0),
    ],
)
def test_ids_of_any_kind_are_accepted_for_evaluation(paths, edit, change):
    edit(change)
    load_coco_format(**paths)
    check_dataset(paths["json_file"], for_evaluation=True)


def test_ids_of_images_may_be_strings(paths, edit):
    edit(every("images", id=lambda e: str(e["id"])))
    edit(every("annotations", image_id=lambda e: str(e["image_id"])))
    assert [len(r["annotations"]) for r in load_coco_format(**paths)] == [2, 2, 0]
    check_dataset(paths["json_file"], for_evaluation=True)


def test_sizes_and_names_that_are_null_count_as_missing(paths, edit):
    edit(every("images", width=None, height=None))
    edit(every("categories", name=None))
    first = load_coco_format(**paths)[0]
    assert "width" not in first and "height" not in first
    sample = DetectionMapper(is_train=True, augmentations=[])(first)
    assert (sample["height"], sample["width"]) == (30, 40)
    check_dataset(paths["json_file"])
