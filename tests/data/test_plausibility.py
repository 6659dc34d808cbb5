"""Boxes in another form are found by most of them, and right data are not refused."""

import logging

import numpy as np
import pytest

from kddetr.data import DatasetError, check_dataset, load_coco_format
from kddetr.data.plausibility import check_boxes
from tests.data.changes import every, replace_boxes

pytestmark = pytest.mark.usefixtures("forget")
SIZE = np.array([400, 300])


def boxes(count: int, seed: int = 0) -> np.ndarray:
    """(count, 4) right boxes x, y, width, height in an image of 400 x 300 pixels."""
    rng = np.random.default_rng(seed)
    low, side = rng.uniform(0, 0.7, (count, 2)), rng.uniform(0.1, 0.3, (count, 2))
    return np.hstack([low * SIZE, side * SIZE]).round(2)


def check(table, size=SIZE) -> list[str]:
    """The warnings about one image with these boxes."""
    notes = [{"bbox": list(map(float, b)), "bbox_mode": 1, "iscrowd": 0} for b in table]
    record = {"file_name": "a.png", "annotations": notes}
    if size is not None:
        record |= {"width": int(size[0]), "height": int(size[1])}
    return check_boxes([record], "d.json")[1]


def corners(table: np.ndarray) -> np.ndarray:
    return np.hstack([table[:, :2], table[:, :2] + table[:, 2:]])


def centres(table: np.ndarray) -> np.ndarray:
    return np.hstack([table[:, :2] + table[:, 2:] / 2, table[:, 2:]])


SCALE = np.array([*SIZE, *SIZE])
WRONG = {
    "fractions": lambda b: b / SCALE,
    "fractions of centres (YOLO)": lambda b: centres(b) / SCALE,
    "fractions of corners": lambda b: corners(b) / SCALE,
    "corners": corners,
}
OUTLIERS = {
    "none": lambda b: b,
    "one slightly above 1": lambda b: np.vstack([b, [0, 0, 1.0002, 1]]),
    "some in pixels": lambda b: np.vstack([b, boxes(len(b) // 10, seed=1)]),
    "some empty": lambda b: np.vstack([b, np.zeros((5, 4))]),
    "many empty": lambda b: np.vstack([b, np.zeros((2 * len(b), 4))]),
}


@pytest.mark.parametrize("outliers", OUTLIERS)
@pytest.mark.parametrize("wrong", WRONG)
def test_boxes_in_another_form_are_refused_despite_outliers(wrong, outliers):
    table = OUTLIERS[outliers](WRONG[wrong](boxes(120)))
    with pytest.raises(DatasetError, match=r"d\.json: \d+ of \d+ boxes .*write x, y, width"):
        check(table)


@pytest.mark.parametrize("wrong", WRONG)
def test_few_boxes_in_another_form_are_warned_of(wrong):
    assert any("look like" in w for w in check(WRONG[wrong](boxes(5))))


@pytest.mark.parametrize("wrong", [w for w in WRONG if w != "corners"])
def test_fractions_need_no_size_of_the_image(wrong):
    with pytest.raises(DatasetError, match="fractions"):
        check(WRONG[wrong](boxes(20)), size=None)


def test_a_few_boxes_in_fractions_among_right_ones_are_warned_of():
    mixed = np.vstack([boxes(100), boxes(7) / SCALE])
    assert any("7 of 107 boxes look like fractions" in w for w in check(mixed))


def test_boxes_outside_of_their_images_are_refused():
    """As those are that are thousandths of a small image."""
    with pytest.raises(DatasetError, match="lie outside of their image"):
        check(boxes(50) / SCALE * 1000, size=(80, 60))


@pytest.mark.parametrize(("unit", "word"), [(100, "percent"), (1000, "thousandths")])
def test_percent_and_thousandths_are_warned_of(unit, word):
    assert any(word in w for w in check(boxes(50) / SCALE * unit, size=(4000, 3000)))


def test_centres_in_pixels_are_warned_of():
    assert any("centres" in w for w in check(centres(boxes(200))))


RIGHT = {
    "usual": (boxes(100), SIZE),
    "few": (boxes(3), SIZE),
    "one pixel": (np.hstack([boxes(50)[:, :2].round(), np.ones((50, 2))]), SIZE),
    "below one pixel": (np.hstack([boxes(50)[:, :2], np.full((50, 2), 0.4)]), SIZE),
    "image of one pixel": (np.array([[0, 0, 1, 1]] * 20), (1, 1)),
    "image of two pixels": (np.array([[0, 0, 0.5, 1], [0.5, 0, 0.5, 1]] * 10), (2, 2)),
    "all of the image": (np.array([[0, 0, *SIZE]] * 20), SIZE),
    "at the origin": (np.hstack([np.zeros((50, 2)), boxes(50)[:, 2:]]), SIZE),
    "big": (np.array([[20, 10, 360, 280]] * 20) + boxes(20)[:, [2]] / 100, SIZE),
    "beyond by half a pixel": (np.array([[200.5, 100.5, 200, 200]] * 20), SIZE),
}


@pytest.mark.parametrize("right", RIGHT)
def test_right_boxes_pass_without_a_word(right):
    assert check(*RIGHT[right]) == []


@pytest.mark.parametrize("table", [[[0, 0, 0, 0]] * 20, [[0, 0, 1, 1]] * 20, []])
def test_boxes_that_say_nothing_are_not_refused(table):
    check(table)


def test_sizes_are_read_from_the_images_where_the_file_has_none(paths, edit, caplog):
    caplog.set_level(logging.WARNING, logger="kddetr")
    table = boxes(120) / 10  # the images are 40 x 30
    edit(every("images", width=None, height=None))
    edit(replace_boxes(table.tolist()))
    load_coco_format(**paths)
    check_dataset(paths["json_file"], for_training=True)
    assert not caplog.records
    edit(replace_boxes(corners(table).tolist()))
    with pytest.raises(DatasetError, match="look like corners"):
        check_dataset(paths["json_file"], for_training=True)


def test_a_box_outside_of_an_image_of_unknown_size_is_refused_for_evaluation(paths, edit):
    """Training leaves it out, but the metric cannot know that it lies outside."""
    edit(replace_boxes([[1, 2, 3, 4], [50, 5, 9, 9], [2, 2, 0, 0]]))
    load_coco_format(**paths)
    check_dataset(paths["json_file"], for_evaluation=True)
    edit(every("images", width=None))
    check_dataset(paths["json_file"], for_training=True)
    with pytest.raises(DatasetError, match=r"1 boxes lie outside .* has no width and height"):
        check_dataset(paths["json_file"], for_evaluation=True)
