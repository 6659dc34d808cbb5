"""The data of the experiment with real images: aerial photographs with hand-drawn tree crowns.

They come inside of the Python package deepforest (Weinstein et al.), which is downloaded, never
installed: nothing of it is run. The package does not state a licence of the data, so no photograph
is part of this project.
"""

import hashlib
import io
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from kddetr.errors import UsageError

from . import ROOT
from .tiles import Region, Tile, coco_document, tiles, voc_boxes

TREES = "output/evidence/trees"  # as configs/common/data/trees.py names it
WHEEL = ROOT / "output" / "downloads" / "deepforest-2.1.0-py3-none-any.whl"
SHA256 = "8c2798d8e9be7f0004b194fe207b76c1d9fff6e711b3db67b9508dcd5d00ae54"
# At half of their size, crowns are about as large as the objects that the pair was made for, and a
# tile of 128 pixels shows several: half of them are then 14 to 26 pixels wide.
SHRINK = 2
SIZE, OVERLAP = 128, 32  # pixels of a tile
TRAIN = "2019_YELL_2_528000_4978000_image_crop2"
WHOLE, UPPER, LOWER = (0.0, 1.0), (0.0, 0.5), (0.5, 1.0)
# The parts of the photographs that each file is cut from, from top to bottom. Train is cut as its
# two halves are, so that the labelled half and the other one share no pixel.
SPLITS = {
    "train": [(TRAIN, UPPER), (TRAIN, LOWER)],
    "train_labeled": [(TRAIN, UPPER)],
    "train_unlabeled": [(TRAIN, LOWER)],
    "val": [("2019_YELL_2_541000_4977000_image_crop", WHOLE)],
    "test": [("OSBS_029", WHOLE), ("SOAP_061", WHOLE)],
}
Photographs = Mapping[str, tuple[np.ndarray, np.ndarray]]  # (H, W, 3) pixels and (N, 4) boxes


def make_trees(say: Callable[[str], None]) -> None:
    """Write the tiles and their labels, unless they are there.

    Raises:
        UsageError: the photographs cannot be downloaded.
    """
    folder = ROOT / TREES
    if folder.is_dir():
        return
    say("fetching four aerial photographs: the package deepforest 2.1.0, 21 MB")
    photographs = read_photographs(fetch(WHEEL))
    partial = folder.with_name(f"{folder.name}.partial")  # a killed program leaves no half data
    shutil.rmtree(partial, ignore_errors=True)
    write_splits(photographs, SPLITS, partial)
    partial.rename(folder)


def fetch(wheel: Path, sha256: str = SHA256) -> Path:
    """The file of the package, which pip downloads unless it is there.

    Raises:
        UsageError: it cannot be downloaded, or is not the file that was recorded.
    """
    if not wheel.is_file():
        name, version = wheel.name.split("-")[:2]
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--retries", "1"]
        words = [*pip, "download", "--no-deps", "--dest", str(wheel.parent), f"{name}=={version}"]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no output"])[-1]
            raise UsageError(
                f"The photographs of {name} {version} cannot be downloaded ({last}): check the"
                " network and pip's settings (PIP_INDEX_URL names a mirror), or put"
                f" {wheel.name} into {wheel.parent}."
            )
    if hashlib.sha256(wheel.read_bytes()).hexdigest() != sha256:
        raise UsageError(f"{wheel} is not the recorded file: its sha256 differs. Remove it.")
    return wheel


def read_photographs(wheel: Path) -> Photographs:
    """The photographs of all splits and their boxes by name, shrunk, from the package."""
    found = {}
    with zipfile.ZipFile(wheel) as archive:
        for name in dict.fromkeys(name for parts in SPLITS.values() for name, _ in parts):
            with Image.open(io.BytesIO(archive.read(f"deepforest/data/{name}.png"))) as image:
                pixels = np.asarray(image.convert("RGB").reduce(SHRINK))
            boxes = voc_boxes(archive.read(f"deepforest/data/{name}.xml").decode())
            found[name] = pixels, boxes / SHRINK
    return found


def write_splits(
    photographs: Photographs,
    splits: Mapping[str, Sequence[tuple[str, tuple[float, float]]]],
    folder: Path,
) -> None:
    """Write ``SPLIT.json`` of each split, in COCO's format, and all tiles into ``tiles``.

    Args:
        photographs: by name.
        splits: the name of a photograph, and where the part begins and ends, of its height.
        folder: is made.
    """
    (folder / "tiles").mkdir(parents=True)
    for split, parts in splits.items():
        named = {}
        for name, (begin, end) in parts:
            pixels, boxes = photographs[name]
            height, width = pixels.shape[:2]
            region = 0, round(begin * height), width, round(end * height)
            named |= _named(name, region, tiles(pixels, boxes, region, SIZE, OVERLAP))
        for file, tile in named.items():
            if not (folder / "tiles" / file).is_file():
                Image.fromarray(tile.pixels).save(folder / "tiles" / file)
        text = json.dumps(coco_document(named, "tree"))
        (folder / f"{split}.json").write_text(text, encoding="utf-8")


def _named(name: str, region: Region, found: Iterable[Tile]) -> dict[str, Tile]:
    """The tiles by names that say where they are from."""
    return {f"{name}_{region[1]}_{i:03d}.png": tile for i, tile in enumerate(found)}
