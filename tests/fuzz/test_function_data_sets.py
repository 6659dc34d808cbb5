"""Data sets that a function registers: right from end to end, or refused in a sentence.

What is required of them is the same as of annotation files, see test_annotation_files.py.
"""

import copy
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog, get_detection_dataset_dicts
from detectron2.structures import BoxMode

from tests.fuzz.hunt import BrokenError, Edit, drop, hunt, put
from tests.fuzz.perfect import (
    SIZES,
    Truth,
    is_set,
    judge,
    registered_names,
    unregister,
    write_images,
)

IDS = [0, -1, 1, 2**63, 2**128, 1.5, "", "a", "7", True, None, [], {}, float("nan")]
IDS += [np.int64(4), np.float32(2), np.str_("x"), np.array(3), torch.tensor(5)]
CLASSES = [-1, 2, 3, 99, 1.0, 0.5, "0", "cat", True, None, [], np.int64(1), np.uint8(2)]
BOXES = [[0, 0, 0, 0], [-5, -5, 5, 5], [500, 2, 509, 9], [9, 9, 3, 3], [1, 1, 5], [1, 1, 5, 5, 30]]
BOXES += [[float("nan")] * 4, [1e300] * 4, [1, 1, 10**400, 5], [True] * 4, ["1", "1", "5", "5"]]
BOXES += [None, "1 1 5 5", {}, [[1, 1, 5, 5]], [2.5, 3.25, 9.125, 9.5], [0.1, 0.2, 0.3, 0.4]]
BOXES += [np.array([2, 3, 9, 10]), torch.tensor([2.0, 3, 9, 10]), (2, 3, 9, 10), []]
MODES = [*BoxMode, 0, 1, 2, 9, "XYWH_ABS", "xyxy", None, True]
FLAGS = [0, 1, 1, True, False, 2, -1, 0.5, "0", "1", None, np.int64(1), np.bool_(True)]
FILES = ["missing.png", "", "sub", "notes.txt", 7, None, b"a.png", "a b.png", "./a.png", "c.jpg"]
JUNK = [None, True, 0, -1, 1.5, "text", "7", [], {}, [None], [{}], float("nan"), np.int64(32)]
CLASS_LISTS = [
    *([], None, ["dog"], ["dog", "cat", "ox", "cow"], ["dog", "dog", "ox"], ("dog", "cat", "ox")),
    *(["dog", "cat", None], [1, 2, 3], "dog", 3, {"dog": 0, "cat": 1, "ox": 2}),
    np.array(["dog", "cat", "ox"]),
]
IDS_OF_ALL: dict[str, Callable[[int], Any]] = {
    "from 0": lambda i: i,
    "numpy": np.int64,
    "text": lambda i: f"{i:06}",
    "128 bits": lambda i: 2**127 + i,
    "floats": float,
    "mixed": lambda i: i if i % 2 else str(i),
    "one for all": lambda i: 0,
    "files": lambda i: list(SIZES)[i],
}
CONTAINERS = {"tuple": tuple, "array": np.array, "tensor": torch.tensor, "float32": np.float32}
RESULTS: dict[str, Callable[[list], Any]] = {
    "tuple": tuple,
    "generator": lambda records: (record for record in records),
    "dictionary": lambda records: dict(enumerate(records)),
    "nothing": lambda records: None,
    "no image": lambda records: [],
    "twice": lambda records: [*records, *records],
}


def right() -> dict[str, Any]:
    """What the function gives, as a list of dataset dicts, and the class names."""
    boxes = [[(1, 2, 11, 14), (5, 5, 9, 9), (12, 3, 30, 23), (2, 2, 22, 11)], [(1, 1, 23, 39)]]
    boxes += [[(4, 4, 54, 44), (30, 10, 50, 40), (2, 30, 13, 43), (8, 8, 17.5, 15.25)], []]
    records = [
        {"file_name": file, "image_id": 10 + i, "width": width, "height": height}
        | {
            "annotations": [
                {"bbox": list(box), "bbox_mode": BoxMode.XYXY_ABS, "category_id": (i + j) % 3}
                for j, box in enumerate(boxes[i])
            ]
        }
        for i, (file, (width, height)) in enumerate(list(SIZES.items())[:4])
    ]
    return {"records": records, "classes": ["dog", "cat", "ox"], "returns": "list"}


def draw(rng: random.Random) -> list[Edit]:
    """One to three edits."""
    return [_edit(rng) for _ in range(rng.choice([1, 1, 2, 2, 3]))]


def _edit(rng: random.Random) -> Edit:
    record = ("records", rng.randrange(4))
    note = (*record, "annotations", rng.randrange(4))
    key = rng.choice(["bbox", "bbox_mode", "category_id"])
    of_image = rng.choice(["file_name", "image_id", "width", "height", "annotations"])
    return rng.choice(
        [
            ("image ids", rng.choice(list(IDS_OF_ALL))),
            ("put", (*record, "image_id"), rng.choice(IDS)),
            ("put", (*record, "file_name"), rng.choice(FILES)),
            ("put", (*record, rng.choice(["width", "height"])), rng.choice([24, 32, *JUNK])),
            ("put", (*note, "category_id"), rng.choice(CLASSES)),
            ("classes from", rng.choice([-1, 1])),
            ("put", (*note, "bbox"), rng.choice(BOXES)),
            ("put", (*note, "bbox_mode"), rng.choice(MODES)),
            ("mode of all", rng.choice(MODES)),
            ("as x, y, width, height",),
            ("containers", rng.choice(list(CONTAINERS))),
            ("put", (*note, rng.choice(["iscrowd", "ignore"])), rng.choice(FLAGS)),
            ("put", ("classes",), rng.choice(CLASS_LISTS)),
            ("put", ("returns",), rng.choice(list(RESULTS))),
            ("put", (*note, key), rng.choice(JUNK)),
            ("put", (*record, of_image), rng.choice(JUNK)),
            ("put", rng.choice([note, record]), rng.choice(JUNK)),
            ("drop", (*note, key)),
            ("drop", (*record, of_image)),
            ("drop all", of_image),
            ("put", (*note, "extra"), rng.choice(JUNK)),
        ]
    )


def edited(edits: list[Edit]) -> dict[str, Any]:
    """The right data set after edits."""
    tree = right()
    for name, *args in edits:
        CHANGES[name](tree, *copy.deepcopy(args))  # an edit may change what another put in
    return tree


def _records(tree: dict) -> list[dict]:
    return [record for record in tree["records"] if isinstance(record, dict)]


def _notes(tree: dict) -> list[dict]:
    lists = [record.get("annotations") for record in _records(tree)]
    return [n for some in lists if isinstance(some, list) for n in some if isinstance(n, dict)]


def _image_ids(tree: dict, how: str) -> None:
    for index, record in enumerate(_records(tree)):
        record["image_id"] = IDS_OF_ALL[how](index)


def _classes_from(tree: dict, first: int) -> None:
    for note in _notes(tree):
        if type(note.get("category_id")) is int:
            note["category_id"] += first


def _mode_of_all(tree: dict, mode: Any) -> None:
    for note in _notes(tree):
        note["bbox_mode"] = mode


def _sizes_for_corners(tree: dict) -> None:
    for note in _notes(tree):
        box = note.get("bbox")
        if note.get("bbox_mode") is BoxMode.XYXY_ABS and _is_box(box):
            note["bbox"] = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
            note["bbox_mode"] = BoxMode.XYWH_ABS


def _is_box(box: Any) -> bool:
    return isinstance(box, list) and len(box) == 4 and all(type(n) in (int, float) for n in box)


def _containers(tree: dict, kind: str) -> None:
    for note in _notes(tree):
        box = note.get("bbox")
        if _is_box(box) and max(box) < 1e9:
            note["bbox"] = CONTAINERS[kind](box)


def _drop_all(tree: dict, key: str) -> None:
    for record in _records(tree):
        record.pop(key, None)


CHANGES: dict[str, Callable] = {"put": put, "drop": drop, "drop all": _drop_all}
CHANGES |= {"image ids": _image_ids, "classes from": _classes_from, "mode of all": _mode_of_all}
CHANGES |= {"as x, y, width, height": _sizes_for_corners, "containers": _containers}


def truth(tree: dict, root: Path) -> Truth:
    """What is in a data set that was accepted."""
    found = Truth(root)
    names = tree["classes"]
    names = list(map(str, range(99) if names is None else names))
    for record in tree["records"] * (2 if tree["returns"] == "twice" else 1):
        path = found.add_image(record["file_name"], record.get("image_id"))
        for note in record.get("annotations", ()):
            if any(is_set(note.get(key)) for key in ("iscrowd", "ignore")):
                continue
            a, b, c, d = map(float, note["bbox"])
            if note["bbox_mode"] == BoxMode.XYWH_ABS:
                c, d = a + c, b + d
            elif note["bbox_mode"] != BoxMode.XYXY_ABS:
                raise BrokenError(f"a box that is read in no mode was accepted: {note}")
            number = note["category_id"]
            if isinstance(number, str) or number not in range(len(names)):
                raise BrokenError(f"a class without a name was accepted: {note} of {names}")
            found.add_box(path, names[int(number)], (a, b, c, d))
    return found


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"))


@pytest.mark.examples(60, 1)
@pytest.mark.filterwarnings("ignore")
def test_function_data_sets(images, tmp_path, request):
    def with_folder(tree: dict) -> Any:
        for record in _records(tree):
            if isinstance(record.get("file_name"), str):
                record["file_name"] = str(images / record["file_name"])
        how = tree["returns"]
        return RESULTS[how](tree["records"]) if how in RESULTS else tree["records"]

    def check(edits: list[Edit]) -> None:
        before = registered_names()
        try:
            classes = edited(edits)["classes"]
            DatasetCatalog.register("fuzz", lambda: with_folder(edited(edits)))
            if classes is not None:
                MetadataCatalog.get("fuzz").set(thing_classes=classes)
            read = partial(get_detection_dataset_dicts, "fuzz", filter_empty=False)
            judge("fuzz", read, lambda: truth(edited(edits), images), tmp_path / "results")
        finally:
            unregister(registered_names() - before)

    hunt(draw, check, request)
