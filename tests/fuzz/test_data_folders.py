"""Folders of labelled images with edited files: used from end to end, or refused in a sentence.

In every case the folder itself stays as it is.
"""

import random
import re
import shutil
from pathlib import Path

import pytest

from kddetr.data import (
    check_dataset,
    find_data,
    inspect_data,
    read_image,
    register_coco_format,
    write_data_page,
)
from tests.data import made_folders
from tests.data.made_folders import TRUTH, picture, write_coco
from tests.fuzz.hunt import BrokenError, Edit, hunt
from tests.fuzz.perfect import registered_names, unregister

WORDS = ["null", "[]", "{}", "-1", "1e400", "NaN", '""', "0", "0.5", "7", "true", "9" * 30, "é"]
WORDS += ["'", "<", ">", "</annotation>", "names:", "[1, 2]", "../", "/", "~", ":", "", "\x00"]
NAMES = ["val.json", "data.yaml", "a b.txt", "train.xml", "0.png", "test/1.jpg", ".hidden"]


def write_layout(layout: str, folder: Path) -> None:
    """A sound folder, whose training and validation images have the boxes of TRUTH."""
    for split in ("train", "val"):
        for name, boxes in TRUTH.items():
            picture(folder / f"{split}/images/{name}.jpg")
            if layout == "YOLO":
                made_folders.write_yolo(folder / f"{split}/labels/{name}.txt", boxes)
            elif layout == "VOC":
                made_folders.write_voc(folder / f"{split}/labels/{name}.xml", boxes)
        if layout == "COCO":
            write_coco(folder / f"{split}/labels.json", TRUTH, suffix=".jpg")
    if layout == "YOLO":
        words = "names: [cat, dog]\ntrain: train/images\nval: val/images\nkpt_shape: [1, 2]\n"
        (folder / "data.yaml").write_text(words)


def draw(random: random.Random) -> list[Edit]:
    """A layout, and one or two edits of its files; numbers are taken modulo what there is."""
    edits: list[Edit] = [("layout", random.choice(["COCO", "YOLO", "VOC"]))]
    for _ in range(random.choice([1, 1, 2])):
        file, place = random.randrange(10**6), random.randrange(10**6)
        kind = random.choice(["word"] * 6 + ["cut", "remove", "move"])
        if kind == "word":
            edits.append((kind, file, place, random.choice(WORDS)))
        elif kind == "move":
            edits.append((kind, file, random.choice(NAMES)))
        else:
            edits.append((kind, file, place))
    return edits


def apply(edit: Edit, folder: Path) -> None:
    """Edit the files of a folder."""
    kind, number, *rest = edit
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if kind == "word":
        files = [path for path in files if path.suffix != ".jpg"]
    if not files:
        return
    path = files[number % len(files)]
    if kind == "remove":
        path.unlink()
    elif kind == "move":
        target = folder / rest[0]
        target.parent.mkdir(exist_ok=True)
        path.rename(target)
    elif kind == "cut":
        content = path.read_bytes()
        path.write_bytes(content[: rest[0] % (len(content) + 1)])
    elif words := list(re.finditer(r"[^\s,:\[\]{}<>]+|\[[^\[\]]*\]", text := path.read_text())):
        word = words[rest[0] % len(words)]
        path.write_text(text[: word.start()] + rest[1] + text[word.end() :])


def contents(folder: Path) -> dict:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.examples(30, 1)
@pytest.mark.filterwarnings("ignore")
def test_data_folders(tmp_path, request):
    for layout in ("COCO", "YOLO", "VOC"):
        write_layout(layout, tmp_path / layout)

    def check(edits: list[Edit]) -> None:
        before, folder, work = registered_names(), tmp_path / "data", tmp_path / "work"
        for path in (folder, work):
            shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(tmp_path / next((e[1] for e in edits if e[0] == "layout"), "COCO"), folder)
        for edit in edits:
            if edit[0] != "layout":
                apply(edit, folder)
        made = contents(folder)
        try:
            data = find_data(folder, work)
            report = inspect_data(data, workers=1)
            write_data_page(report, work / "data.html")
            names = {
                split: register_coco_format(json_file=s.json_file, image_root=s.image_root)
                for split, s in (("train", data.train), ("val", data.val))
                if s
            }
            if not report.of_severity("error"):
                for split, name in names.items():
                    check_dataset(name, for_training=split == "train", for_evaluation=True)
                for image in [one for finding in report.findings for one in finding.images]:
                    read_image(image.file)
        finally:
            unregister(registered_names() - before)
            if contents(folder) != made:
                raise BrokenError("the folder was changed")

    hunt(draw, check, request)
