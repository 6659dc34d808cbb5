"""COCO documents made of boxes that were read from another layout."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import DatasetError
from ..images import upright_size
from .found import Document


@dataclass(frozen=True)
class Box:
    """A labelled object.

    Attributes:
        label: index of its class.
        xywh: upper left corner and size, in pixels of the upright image.
        ignore: neither an object nor background, such as the difficult objects of Pascal VOC.
    """

    label: int
    xywh: tuple[float, float, float, float]
    ignore: bool = False


@dataclass(frozen=True)
class Labelled:
    """An image file, its (width, height) when upright, and its objects."""

    file: Path
    size: tuple[int, int]
    boxes: Sequence[Box]


def make_document(images: Sequence[Labelled], classes: Sequence[str], source: str) -> Document:
    """A COCO document, with ids from 1 and images sorted by path."""
    images = sorted(images, key=lambda one: one.file)
    root = os.path.commonpath([one.file.parent for one in images]) if images else source
    content: dict = {
        "info": {"description": f"converted from {source}"},
        "images": [
            {
                "id": i,
                "file_name": os.path.relpath(one.file, root),
                "width": one.size[0],
                "height": one.size[1],
            }
            for i, one in enumerate(images, 1)
        ],
        "annotations": [],
        "categories": [{"id": i, "name": name} for i, name in enumerate(classes)],
    }
    notes = content["annotations"]
    for i, one in enumerate(images, 1):
        for box in one.boxes:
            x, y, width, height = box.xywh
            note: dict = {"id": len(notes) + 1, "image_id": i, "category_id": box.label}
            note |= {"bbox": [x, y, width, height], "area": width * height, "iscrowd": 0}
            notes.append(note | ({"ignore": 1} if box.ignore else {}))
    return Document(content, root, source)


def sized(files: Iterable[Path], notes: list[str]) -> dict[Path, tuple[int, int]]:
    """The upright (width, height) of each image; files that are no images are left out and noted,
    because boxes in fractions of them have no size.
    """
    sizes, broken = {}, []
    for file in files:
        try:
            sizes[file] = upright_size(file)
        except DatasetError:
            broken.append(file)
    if broken:
        notes.append(
            f"{count(len(broken), 'file')} cannot be opened as an image and "
            f"{'is' if len(broken) == 1 else 'are'} left out: {some(broken)}."
        )
    return sizes


def read_lines(path: Path) -> list[str]:
    """The lines of a text file, without spaces around them.

    Raises:
        DatasetError: it is not text in UTF-8.
    """
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise DatasetError(
            f"{path} is not text in UTF-8 ({error}): save it in this encoding."
        ) from error


def count(number: int, noun: str) -> str:
    """``1 image`` or ``2 images``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def some(paths: Sequence[Path], most: int = 3) -> str:
    """The first paths of several, for a sentence."""
    return ", ".join(map(str, paths[:most])) + (", ..." if len(paths) > most else "")
