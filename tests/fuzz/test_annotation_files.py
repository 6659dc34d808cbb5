"""Annotation files as people have them: right from end to end, or refused in a sentence.

A file that is accepted trains on exactly its objects, and a detector that finds exactly its objects
scores AP 100. An *object* is a box of a side above a thousandth of a pixel inside of its image that
is marked neither ``iscrowd`` nor ``ignore``: nothing else can be seen, so nothing else may count.
"""

import copy
import json
import random
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from detectron2.data import get_detection_dataset_dicts
from detectron2.data.datasets import register_coco_instances

from kddetr.data import load_coco_format, register_coco_format
from tests.fuzz.hunt import BrokenError, Edit, drop, hunt, put
from tests.fuzz.perfect import Truth, is_set, judge, registered_names, unregister, write_images

IDS = [0, -1, 1, 3, 2**31, 2**53 + 1, 2**63, 2**64 + 3, 2**128, 12345678901234567, 1.0, 1.5]
IDS += ["1", "3", "", "000123", "a", True, False, None, [], {}, [1], float("nan"), 1e308]
NUMBERS = [0, 1, -1, 0.5, 1e-9, 1e6, 1e11, 1e39, 1e300, 10**400, float("nan"), float("inf")]
JUNK = [None, True, "", "text", "7", [], {}, [[]], [None], {"id": 1}, *NUMBERS]
FLAGS = [0, 1, 1, True, False, 1.0, 2, -1, 0.5, "0", "1", "", None, [], float("nan")]
BOXES = [
    *([0, 0, 0, 0], [3, 3, 0, 5], [3, 3, 5, 0], [-5, -5, 9, 9], [-9, -9, 5, 5], [500, 2, 9, 9]),
    *([28, 20, 60, 60], [2, 2, -5, 5], [2.5, 3.25, 7.125, 9.0625], [0.1, 0.2, 0.3, 0.4]),
    *([1, 1, 1e-9, 5], [1, 1, 1e9, 1e9], [1, 1, 1e39, 5], [1e300] * 4, [2, 2, 10**400, 5]),
    *([3, 3, float("nan"), 5], [3, 3, float("inf"), 5], [True, True, True, True], [1, 1, 5]),
    *(["1", "1", "5", "5"], [1, 1, 5, 5, 0], [[1, 1, 5, 5]], [1, 1, None, 5], "1 1 5 5"),
]
SHAPES = [*JUNK, [[1, 1, 9, 1, 9, 9]], [[1, 1, 9, 9]], [[1, 1, 9, 1, 9, 9, 5]], [[[1, 1]] * 3]]
SHAPES += [[1, 1, 9, 1, 9, 9], [["1"] * 6], {"size": [24, 32], "counts": [8, 760]}, [2, 2, 2] * 17]
SHAPES += [{"size": [24, 32], "counts": "x"}, {"size": [1, 1], "counts": [9]}, [None] * 51]
FILES = ["missing.png", "A.PNG", "./a.png", "sub/../a.png", "sub\\d.png", "b.jpg", "c.jpg", "a"]
FILES += ["a b.png", "a%20b.png", "\u00fc.png", "u\u0308.png", "\U0001f600.png", "%41.png", "sub"]
FILES += ["", ".", "..", "/", "a.png/", "a.png\0", "\ud800.png", "x" * 300 + ".png", "notes.txt"]
NAMES = ["cat", "late", "CAT", "", " ", "a,b", "cat\n", "\u732b", "\ud800", 7, 7.5, None, [], {}]

RENUMBER = {  # the index of an entry, from 0 -> its id
    "from 0": lambda i: i,
    "negative": lambda i: -1 - i,
    "reversed": lambda i: 100 - i,
    "sparse": lambda i: 10**i,
    "64 bits": lambda i: 2**63 + 7 * i,
    "128 bits": lambda i: 2**127 + i,
    "17 digits": lambda i: 12345678901234560 + i,
    "whole floats": lambda i: float(i + 1),
    "halves": lambda i: i + 0.5,
    "digits": lambda i: f"{i:06}",
    "text": lambda i: f"n{i}",
    "mixed": lambda i: i if i % 2 else str(i),
    "one for all": lambda i: 1,
}
REFERENCES = {"images": "image_id", "categories": "category_id"}
ENCODINGS = ["utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1", "cp1252"]


def document() -> dict[str, Any]:
    """A right file: four images, one without boxes, three classes, a crowd."""
    sizes = {"a.png": (32, 24), "b.png": (24, 40), "c.jpg": (64, 48), "sub/d.png": (20, 20)}
    boxes = [
        *([(1, 2, 10, 12), (5, 5, 4, 4), (12, 3, 18, 20), (2, 2, 20, 9), (8, 8, 9.5, 7.25)]),
        *([(1, 1, 22, 38), (3, 20, 12, 15), (0, 0, 24, 40), (6, 7, 8, 9)]),
        *([(4, 4, 50, 40), (30, 10, 20, 30), (2, 30, 11, 13)]),
    ]
    images = [0] * 5 + [1] * 4 + [2] * 3
    return {
        "info": {"description": "made for a test"},
        "licenses": [],
        "images": [
            {"id": i + 5, "file_name": name, "width": w, "height": h}
            for i, (name, (w, h)) in enumerate(sizes.items())
        ],
        "annotations": [
            {"id": i + 1, "image_id": images[i] + 5, "category_id": (3, 1, 7)[i % 3]}
            | {"bbox": list(box), "area": box[2] * box[3], "iscrowd": int(i == 6)}
            for i, box in enumerate(boxes)
        ],
        "categories": [{"id": 3, "name": "dog"}, {"id": 1, "name": "cat"}, {"id": 7, "name": "ox"}],
    }


def draw(rng: random.Random) -> list[Edit]:
    """One to four edits, of the document or of its bytes."""
    edits = [_edit(rng) for _ in range(rng.choice([1, 1, 2, 2, 3, 4]))]
    if rng.random() < 0.15:
        edits.append(_damage(rng))
    return edits + ([("by Detectron2",)] if rng.random() < 0.25 else [])


def _edit(rng: random.Random) -> Edit:
    note = ("annotations", rng.randrange(12))
    image = ("images", rng.randrange(4))
    kind = ("categories", rng.randrange(3))
    some = rng.choice([note, note, image, kind])
    keys = {"annotations": ["id", "image_id", "category_id", "bbox", "area", "iscrowd"]}
    keys |= {"images": ["id", "file_name", "width", "height"], "categories": ["id", "name"]}
    key = rng.choice(keys[some[0]])
    whole = rng.choice([*keys, "info"])
    return rng.choice(
        [
            ("renumber", rng.choice(list(keys)), rng.choice(list(RENUMBER))),
            ("renumber", rng.choice(list(keys)), rng.choice(list(RENUMBER))),
            ("put", (*some, "id"), rng.choice(IDS)),
            ("put", (*note, rng.choice(["image_id", "category_id"])), rng.choice([3, 5, *IDS])),
            ("put", (*note, rng.choice(["iscrowd", "ignore"])), rng.choice(FLAGS)),
            ("every", "annotations", rng.choice(["iscrowd", "ignore"]), rng.choice(FLAGS)),
            ("every", "annotations", "area", rng.choice(NUMBERS)),
            ("put", (*note, "bbox"), rng.choice(BOXES)),
            ("put", (*note, "bbox", rng.randrange(4)), rng.choice(NUMBERS)),
            ("put", (*note, "area"), rng.choice(NUMBERS)),
            ("boxes", rng.choice(["corners", "fractions", "floats", "text"]), rng.choice([0, 1])),
            ("put", (*note, rng.choice(["segmentation", "keypoints"])), rng.choice(SHAPES)),
            ("put", (*image, "file_name"), rng.choice(FILES)),
            ("put", (*image, rng.choice(["width", "height"])), rng.choice([24, 32, *JUNK])),
            ("swap sizes", rng.choice([None, 0, 1])),
            ("put", (*kind, "name"), rng.choice(NAMES)),
            ("put", (*some, key), rng.choice(JUNK)),
            ("put", some, rng.choice(JUNK)),
            ("put", (whole,), rng.choice(JUNK)),
            ("drop", (*some, key)),
            ("drop", some),
            ("drop", (whole,)),
            ("drop all", some[0], key),
            ("put", (*some, "extra"), rng.choice(JUNK)),
            ("repeat", some, rng.choice([{}, {"id": 99}, {"id": 99, "name": "cow"}])),
            ("share", rng.choice([2, 3]), rng.choice(["c.jpg", "a.png", "./a.png"])),
            ("shuffle", some[0], rng.randrange(99)),
        ]
    )


def _damage(rng: random.Random) -> Edit:
    return rng.choice(
        [
            ("encode", rng.choice(ENCODINGS)),
            ("encode", rng.choice(ENCODINGS)),
            ("cut", rng.randrange(1900)),
            ("byte", rng.randrange(1900), rng.randrange(256)),
            (
                "whole file",
                rng.choice([b"", b" ", b"null", b"[]", b"{}", b"7", b'"x"', b"\x1f\x8b"]),
            ),
            (
                "whole file",
                rng.choice([b"[" * 100000, b'{"images":' * 5000, b"\xff\xfe", b"PK\3\4"]),
            ),
            ("append", rng.choice([b"\n\n", b"}", b"\0", b"\x1a"])),
        ]
    )


def edited(edits: list[Edit]) -> bytes:
    """The bytes of the right file after edits."""
    tree = document()
    for name, *args in edits:
        if name in CHANGES:
            CHANGES[name](tree, *copy.deepcopy(args))  # an edit may change what another put in
    as_it_is = any(name == "encode" for name, *_ in edits)
    raw = json.dumps(tree, ensure_ascii=not as_it_is).encode("utf-8", "surrogatepass")
    for name, *args in edits:
        if name in OF_BYTES:
            raw = OF_BYTES[name](raw, *args)
    return raw


def _entries(tree: dict, kind: str) -> list[dict]:
    found = tree.get(kind)
    return [e for e in found if isinstance(e, dict)] if isinstance(found, list) else []


def _renumber(tree: dict, kind: str, how: str) -> None:
    new = {}
    for index, entry in enumerate(_entries(tree, kind)):
        if isinstance(entry.get("id"), int):
            new[entry["id"]] = RENUMBER[how](index)
            entry["id"] = new[entry["id"]]
    for note in _entries(tree, "annotations") if kind in REFERENCES else ():
        value = note.get(REFERENCES[kind])
        if isinstance(value, int) and value in new:
            note[REFERENCES[kind]] = new[value]


def _boxes(tree: dict, how: str, others: int) -> None:
    """Write all boxes, but for the first few, in another form."""
    for note in _entries(tree, "annotations")[others:]:
        box = note.get("bbox")
        if isinstance(box, list) and [type(n) for n in box] == [int] * 4 and max(box) < 99:
            x, y, w, h = box
            forms = {"corners": [x, y, x + w, y + h], "fractions": [n / 64 for n in box]}
            forms |= {"floats": [n + 0.25 for n in box], "text": [str(n) for n in box]}
            note["bbox"] = forms[how]


def _swap_sizes(tree: dict, which: int | None) -> None:
    for image in _entries(tree, "images")[
        slice(None) if which is None else slice(which, which + 1)
    ]:
        image["width"], image["height"] = image.get("height"), image.get("width")


def _repeat(tree: dict, path: tuple, changes: dict) -> None:
    kind, index = path
    found = tree.get(kind)
    if isinstance(found, list) and index < len(found) and isinstance(found[index], dict):
        found.append(found[index] | changes)


def _every(tree: dict, kind: str, key: str, value: Any) -> None:
    for entry in _entries(tree, kind):
        entry[key] = copy.deepcopy(value)


def _drop_all(tree: dict, kind: str, key: str) -> None:
    for entry in _entries(tree, kind):
        entry.pop(key, None)


def _shuffle(tree: dict, kind: str, seed: int) -> None:
    if isinstance(tree.get(kind), list):
        random.Random(seed).shuffle(tree[kind])


def _share(tree: dict, index: int, file: str) -> None:
    """Let another image name a file that is listed already."""
    put(tree, ("images", index, "file_name"), file)
    for key in ("width", "height"):
        drop(tree, ("images", index, key))


def _byte(raw: bytes, index: int, value: int) -> bytes:
    return raw[:index] + bytes([value]) + raw[index + 1 :]


CHANGES = {"put": put, "drop": drop, "renumber": _renumber, "boxes": _boxes, "every": _every}
CHANGES |= {"swap sizes": _swap_sizes, "repeat": _repeat, "drop all": _drop_all}
CHANGES |= {"shuffle": _shuffle, "share": _share}
OF_BYTES = {
    "encode": lambda raw, name: raw.decode("utf-8", "replace").encode(name, "replace"),
    "cut": lambda raw, length: raw[:length],
    "byte": _byte,
    "whole file": lambda raw, content: content,
    "append": lambda raw, content: raw + content,
}


def truth(raw: bytes, root: Path) -> Truth:
    """What is in a file that was accepted, read in the plainest way."""
    try:
        tree = json.loads(raw)
    except ValueError:
        # The whole text may still be in an encoding that has to be guessed.
        raise BrokenError("a file that is no JSON was accepted") from None
    names = {}
    for entry in tree["categories"]:
        name = entry["id"] if entry.get("name") is None else entry["name"]
        names[entry["id"]] = str(name)
    found = Truth(root)
    files = {
        image["id"]: found.add_image(image["file_name"], image["id"]) for image in tree["images"]
    }
    for note in tree.get("annotations", ()):
        if not any(is_set(note.get(key)) for key in ("iscrowd", "ignore")):
            x, y, w, h = note["bbox"]
            box = (x, y, x + w, y + h)
            found.add_box(files[note["image_id"]], names[note["category_id"]], box)
    found.category_ids = {name: key for key, name in names.items()}
    return found


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"))


@pytest.mark.examples(90, 1)
@pytest.mark.filterwarnings("ignore")
def test_annotation_files(images, tmp_path, request):
    file = tmp_path / "instances.json"

    def check(edits: list[Edit]) -> None:
        raw = edited(edits)
        file.write_bytes(raw)
        before = registered_names()
        try:
            paths = {"json_file": str(file), "image_root": str(images), "name": "fuzz"}
            if ("by Detectron2",) in edits:
                register_coco_instances("fuzz", {}, str(file), str(images))
                read = partial(get_detection_dataset_dicts, "fuzz", filter_empty=False)
            else:
                register_coco_format(**paths)
                read = partial(load_coco_format, **paths)
            judge("fuzz", read, partial(truth, raw, images), tmp_path / "results")
        finally:
            unregister(registered_names() - before)

    hunt(draw, check, request)
