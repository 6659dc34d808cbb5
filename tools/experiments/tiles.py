"""Photographs with boxes in Pascal VOC's XML, cut into overlapping tiles in COCO's format."""

import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from kddetr.errors import UsageError

SIDES = ("xmin", "ymin", "xmax", "ymax")
Region = tuple[int, int, int, int]  # left, top, right and bottom edge in pixels


@dataclass(frozen=True)
class Tile:
    """A square part of a photograph.

    Attributes:
        pixels: (H, W, 3), a view of the photograph.
        boxes: (N, 4) XYXY in pixels of the tile, cut at its edges.
    """

    pixels: np.ndarray
    boxes: np.ndarray


def voc_boxes(text: str) -> np.ndarray:
    """The boxes of a VOC file, of all classes: (N, 4) XYXY in pixels.

    VOC counts pixels from 1 and names the last pixel of a box. The result counts from 0 and names
    the edge behind it, so that the width of a box is xmax - xmin.

    Raises:
        UsageError: the text is not such a file.
    """
    try:
        found = [
            [float(thing.findtext(f"bndbox/{side}", "")) for side in SIDES]
            for thing in ElementTree.fromstring(text).iter("object")
        ]
    except (ElementTree.ParseError, ValueError) as error:
        raise UsageError(
            f"This is no file of boxes in Pascal VOC's format ({error}): {text[:80]!r}"
        ) from error
    return np.array(found).reshape(-1, 4) - [1, 1, 0, 0]


def starts(length: int, size: int, overlap: int) -> list[int]:
    """Where tiles of ``size`` pixels begin that cover ``length`` pixels: evenly spaced, as few as
    possible, and each shares ``overlap`` pixels or more with the next.
    """
    count = 1 + max(0, math.ceil((length - size) / (size - overlap)))
    return [round(place) for place in np.linspace(0, length - size, count)]


def boxes_inside(boxes: np.ndarray, region: Region, least: float = 0.5) -> np.ndarray:
    """The boxes in a region, (M, 4), in its own pixels: cut at its edges, and left out where less
    than the share ``least`` of the area remains.

    Args:
        boxes: (N, 4) XYXY in pixels of the photograph.
        region: whose boxes are wanted.
        least: in (0, 1].
    """
    left, top, right, bottom = region
    cut = boxes.clip([left, top, left, top], [right, bottom, right, bottom])
    kept = _areas(cut) >= least * _areas(boxes)
    return cut[kept] - [left, top, left, top]


def tiles(
    photograph: np.ndarray, boxes: np.ndarray, region: Region, size: int, overlap: int
) -> Iterator[Tile]:
    """All tiles of a region of a photograph, row by row.

    Args:
        photograph: (H, W, 3).
        boxes: (N, 4) XYXY in its pixels.
        region: no tile reaches beyond it; at least ``size`` pixels wide and high.
        size: of a tile, in pixels.
        overlap: of neighbouring tiles, in pixels, at least; less than ``size``.
    """
    left, top, right, bottom = region
    for y in starts(bottom - top, size, overlap):
        for x in starts(right - left, size, overlap):
            place = left + x, top + y, left + x + size, top + y + size
            pixels = photograph[place[1] : place[3], place[0] : place[2]]
            yield Tile(pixels, boxes_inside(boxes, place))


def coco_document(named: Mapping[str, Tile], category: str) -> dict:
    """Tiles of one class in COCO's format, by their file names."""
    images, notes = [], []
    for number, (name, tile) in enumerate(named.items(), 1):
        height, width = tile.pixels.shape[:2]
        images.append({"id": number, "file_name": name, "width": width, "height": height})
        for x0, y0, x1, y1 in tile.boxes.tolist():
            box = [x0, y0, x1 - x0, y1 - y0]
            found = {"id": len(notes) + 1, "image_id": number, "category_id": 1, "iscrowd": 0}
            notes.append(found | {"bbox": box, "area": box[2] * box[3]})
    categories = [{"id": 1, "name": category}]
    return {"images": images, "annotations": notes, "categories": categories}


def _areas(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
