"""Small folders of labelled images, in the layouts that labelling programs export."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from kddetr.data import DataFolder, Split, load_coco_format

SIZE = (40, 30)
Boxes = Sequence[tuple[str, tuple[float, float, float, float]]]  # class and x, y, width, height

# Known boxes, in pixels of an upright image of 40 x 30.
TRUTH: dict[str, Boxes] = {
    "0": [("cat", (1, 2, 10, 12)), ("dog", (0, 0, 40, 30))],
    "1": [("dog", (12.5, 7.25, 20.125, 3.5))],
    "2": [],
    "3": [("cat", (30, 20, 10, 10))],
}


def picture(path: Path, *, size=SIZE, seed: int | None = None, mode="RGB", orientation=1) -> Path:
    """Write an image of random pixels; its seed is by default made of its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(sum(path.as_posix().encode()) if seed is None else seed)
    pixels = random.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"exif": exif} if orientation != 1 else {}
    Image.fromarray(pixels).convert(mode).save(path, **options)
    return path


def write_coco(
    path: Path, truth: Mapping[str, Boxes], *, suffix=".png", ids=None, more=(), **image
) -> Path:
    """Write a COCO file; ``ids`` gives the category ids by name, ``more`` further categories."""
    ids = ids or {"cat": 1, "dog": 2}
    document: dict = {
        "images": [
            {"id": i, "file_name": f"{name}{suffix}", "width": SIZE[0], "height": SIZE[1]} | image
            for i, name in enumerate(truth)
        ],
        "annotations": [],
        "categories": [*more, *({"id": i, "name": name} for name, i in ids.items())],
    }
    notes = document["annotations"]
    for i, boxes in enumerate(truth.values()):
        for name, box in boxes:
            note = {"id": len(notes) + 1, "image_id": i, "category_id": ids[name]}
            notes.append(note | {"bbox": list(box), "area": box[2] * box[3], "iscrowd": 0})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))
    return path


def write_yolo(label: Path, boxes: Boxes, names: Sequence[str] = ("cat", "dog")) -> Path:
    """Write a label file with as many digits as a number has."""
    lines = []
    for name, (x, y, w, h) in boxes:
        place = ((x + w / 2) / SIZE[0], (y + h / 2) / SIZE[1], w / SIZE[0], h / SIZE[1])
        lines.append(f"{names.index(name)} " + " ".join(map(repr, place)))
    label.parent.mkdir(parents=True, exist_ok=True)
    label.write_text("\n".join(lines))
    return label


def write_voc(path: Path, boxes: Boxes, *, first: int = 1, size=SIZE, extra: str = "") -> Path:
    """Write an XML file, with corners that begin at ``first``; ``extra`` goes into each object."""
    objects = [
        f"<object><name>{name}</name>{extra}<bndbox><xmin>{x + first}</xmin><ymin>{y + first}"
        f"</ymin><xmax>{x + w}</xmax><ymax>{y + h}</ymax></bndbox></object>"
        for name, (x, y, w, h) in boxes
    ]
    stated = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"<annotation>{stated}{''.join(objects)}</annotation>")
    return path


def read(split: Split, data: DataFolder) -> dict[str, Boxes]:
    """The boxes of a split by file name without folder and suffix, as the loader reads them."""
    records = load_coco_format(json_file=split.json_file, image_root=split.image_root)
    for record in records:
        assert Path(record["file_name"]).is_file()
    return {
        Path(record["file_name"]).stem: [
            (data.classes[note["category_id"]], tuple(note["bbox"]))
            for note in record["annotations"]
        ]
        for record in records
    }


def assert_equal(found: Mapping[str, Boxes], truth: Mapping[str, Boxes]) -> None:
    """Assert that boxes are those of the truth within 1e-6 pixels, in any order."""
    assert found.keys() == truth.keys()
    for key, boxes in truth.items():
        assert len(found[key]) == len(boxes)
        for (name, box), (wanted, place) in zip(sorted(found[key]), sorted(boxes)):
            assert name == wanted
            np.testing.assert_allclose(box, place, rtol=0, atol=1e-6)
