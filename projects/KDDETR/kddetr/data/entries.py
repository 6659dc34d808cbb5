"""Checks of the entries of a COCO file: images, categories and annotations.

A JSON file can hold values that no box can have, such as ``NaN`` or a negative width, and other
readers silently turn some of them into wrong boxes. Each error names the entry.
"""

import math
from collections.abc import Container, Sequence

from ..errors import DatasetError


def check_ids(entries: Sequence[dict], kind: str, kinds: str, json_file: str) -> None:
    """Raise DatasetError unless the ids of images or categories are distinct and can be sorted."""
    seen = set()
    for entry in entries:
        _require(entry, ("id",), kind, json_file)
        value = entry["id"]
        if not isinstance(value, int | float | str):
            raise DatasetError(
                f"{json_file}: {kind} {value!r}: an id must be a number or a string."
            )
        if value in seen:
            raise DatasetError(
                f"{json_file} lists the {kind} id {value} twice: give each its own id."
            )
        seen.add(value)
    if len({isinstance(value, str) for value in seen}) > 1:
        raise DatasetError(f"{json_file}: the ids of {kinds} must be all numbers or all strings.")


def check_image(image: dict, json_file: str) -> None:
    """Raise DatasetError unless an image has a file name and, if its size is given, a valid one."""
    _require(image, ("file_name",), "image", json_file)
    where = f"{json_file}, image {image['id']}:"
    if not isinstance(image["file_name"], str):
        raise DatasetError(f"{where} file_name must be a string, not {image['file_name']!r}.")
    for key in ("height", "width"):
        value = image.get(key)
        if value is not None and not (_is_number(value) and 0 < value < math.inf):
            raise DatasetError(
                f"{where} {key} must be a positive number of pixels, not {value!r}; it may be left "
                "out."
            )


def check_annotation(note: dict, images: Container, categories: Container, json_file: str) -> None:
    """Raise DatasetError unless an annotation is a box of a known image and category.

    A box without area, or outside of its image, is accepted; the mapper leaves it out.
    """
    _require(note, ("image_id", "category_id", "bbox"), "annotation", json_file)
    where = f"{json_file}, annotation {note.get('id', '(no id)')}:"
    for key, known in (("image_id", images), ("category_id", categories)):
        if not isinstance(note[key], int | float | str) or note[key] not in known:
            raise DatasetError(f"{where} there is no {key[:-3]} with id {note[key]!r}.")
    box = note["bbox"]
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
        raise DatasetError(f"{where} bbox must be four numbers x, y, width, height, not {box!r}.")
    if not all(map(math.isfinite, box)):
        raise DatasetError(f"{where} bbox {box} is not finite: correct it or leave it out.")
    if box[2] < 0 or box[3] < 0:
        raise DatasetError(
            f"{where} bbox {box} has a negative width or height; it must be x, y, width, height."
        )
    if note.get("iscrowd", 0) not in (0, 1):
        raise DatasetError(f"{where} iscrowd must be 0 or 1, not {note['iscrowd']!r}.")


def check_for_metric(document: dict, json_file: str) -> None:
    """Raise DatasetError unless every area of a parsed file is a number, 0 or more.

    It may be left out: the metric then takes the area of the box. Ids may be of any kind, because
    the evaluator numbers images, categories and annotations itself.
    """
    for note in document.get("annotations", ()):
        area = note.get("area")
        if area is not None and not (_is_number(area) and 0 <= area < math.inf):
            raise DatasetError(
                f"{json_file}: for evaluation, annotation {note.get('id', '(no id)')}: the area "
                f"must be a finite number, 0 or more, not {area!r}; it may be left out."
            )


def _require(entry: dict, keys: tuple[str, ...], kind: str, json_file: str) -> None:
    """Raise DatasetError if an entry is not a JSON object or lacks one of ``keys``."""
    if not isinstance(entry, dict):
        raise DatasetError(f"{json_file}: {kind} {entry!r} is not an object.")
    for key in keys:
        if key not in entry:
            raise DatasetError(f"{json_file}: {kind} {entry.get('id', entry)} has no {key!r}.")


def _is_number(value) -> bool:
    # A number in JSON. Python's bool is an int too, but JSON's true is not a number.
    return type(value) in (int, float)
