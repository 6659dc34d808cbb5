"""Checks of the entries of a COCO file: images, categories and annotations.

A JSON file can hold values that no box can have, such as ``NaN`` or a negative width, and other
readers silently turn some of them into wrong boxes. Each error names the entry.
"""

import logging
import math
from collections.abc import Container, Mapping, Sequence
from itertools import chain

import numpy as np

from ..errors import DatasetError

_log = logging.getLogger(__name__)

LARGEST = 1e9  # pixels; beyond this, float32 rounds a box by a hundred pixels


def check_ids(entries: Sequence[dict], kind: str, kinds: str, json_file: str) -> None:
    """Raise DatasetError unless the ids of images or categories are distinct and can be sorted."""
    for entry in entries:
        _require(entry, ("id",), kind, json_file)
    check_distinct([entry["id"] for entry in entries], kind, kinds, json_file)


def check_distinct(ids: Sequence, kind: str, kinds: str, where: str) -> None:
    """Raise DatasetError unless ids are numbers of any size, or strings, and each is there once."""
    seen = set()
    for value in ids:
        if not is_id(value):
            raise DatasetError(f"{where}: {kind} {value!r}: an id must be a number or a string.")
        if value in seen:
            raise DatasetError(f"{where} lists the {kind} id {value} twice: give each its own id.")
        seen.add(value)
    if len({isinstance(value, str) for value in seen}) > 1:
        raise DatasetError(f"{where}: the ids of {kinds} must be all numbers or all strings.")


def check_class_names(names: Sequence, where: str) -> None:
    """Raise DatasetError if two classes have the same name; warn of names that look the same.

    Results are listed by name, so one of the two would be lost.
    """
    seen: dict = {}
    for name in names:
        if not isinstance(name, str | int | float):
            raise DatasetError(f"{where}: the name of a category must be a string, not {name!r}.")
        if not is_text(str(name)):
            raise DatasetError(f"{where}: the name {name!r} cannot be written in UTF-8: change it.")
        if str(name) in seen.values():
            raise DatasetError(
                f"{where} has two categories named {str(name)!r}: merge them, rename one, or "
                "remove one that no box uses."
            )
        alike = seen.setdefault(" ".join(str(name).casefold().split()), str(name))
        if alike != str(name):
            _log.warning(
                "%s: the categories %r and %r differ only in case or spaces, and are different "
                "classes; merge them if the same is meant.",
                where,
                alike,
                str(name),
            )


def check_listed_once(files: Mapping, where: str) -> None:
    """Raise DatasetError if a file belongs to several images.

    Args:
        files: normalised path of each image's file, by image id.
        where: what the message begins with.
    """
    seen: dict = {}
    for key, file in files.items():
        other = seen.setdefault(file, key)
        if other != key:
            raise DatasetError(
                f"{where}: the images {other} and {key} are the same file {file}: list a file "
                "once, with all of its boxes."
            )


def check_image(image: dict, json_file: str) -> None:
    """Raise DatasetError unless an image has a file name and, if its size is given, a valid one."""
    _require(image, ("file_name",), "image", json_file)
    where = f"{json_file}, image {image['id']}:"
    if not isinstance(image["file_name"], str) or not is_text(image["file_name"]):
        raise DatasetError(f"{where} file_name must be a string, not {image['file_name']!r}.")
    for key in ("height", "width"):
        value = image.get(key)
        if value is not None and not (
            _is_number(value) and 0 < value < LARGEST and value == int(value)
        ):
            raise DatasetError(
                f"{where} {key} must be a positive number of pixels, not {value!r}; it may be left "
                "out."
            )


def check_annotations(
    notes: Sequence[dict], images: Container, categories: Container, json_file: str
) -> None:
    """Raise DatasetError unless each annotation is a box of a known image and category.

    A box without area, or outside of its image, is accepted; the mapper leaves it out. All entries
    are checked at once, and one by one only to find the one that the message names, because COCO
    has almost a million of them.
    """
    if not _all_sound(notes, images, categories):
        for note in notes:
            _check_annotation(note, images, categories, json_file)


def is_left_out(note: dict) -> bool:
    """Whether an annotation is neither an object nor background: a crowd, or one to ignore."""
    return bool(note.get("iscrowd") or note.get("ignore"))


def is_id(value: object) -> bool:
    """Whether a value can be an id: a string or a finite number, but not true or false."""
    return (isinstance(value, str) and is_text(value)) or (
        type(value) in (int, float) and (type(value) is int or math.isfinite(value))
    )


def is_text(value: str) -> bool:
    """Whether a string can be printed and saved; JSON can hold halves of characters."""
    try:
        return bool(value.encode() or True)
    except UnicodeEncodeError:
        return False


def is_box(value: object) -> bool:
    """Whether a value is a list of four numbers, possibly not finite."""
    return isinstance(value, list) and len(value) == 4 and all(map(_is_number, value))


def _all_sound(notes: Sequence[dict], images: Container, categories: Container) -> bool:
    """Whether :func:`_check_annotation` accepts every annotation; False may be a false alarm."""
    try:
        boxes = [note["bbox"] for note in notes]
        if set(map(type, boxes)) - {list} or set(map(len, boxes)) - {4}:
            return False
        numbers = list(chain.from_iterable(boxes))
        if set(map(type, numbers)) - {int, float}:
            return False
        table = np.array(numbers, dtype=np.float64).reshape(-1, 4)
        for key, known in (("image_id", images), ("category_id", categories)):
            ids = [note[key] for note in notes]
            if set(map(type, ids)) - {int, float, str} or not all(i in known for i in ids):
                return False
        flags = {note.get(key, 0) for note in notes for key in ("iscrowd", "ignore")}
    except (KeyError, TypeError, AttributeError, OverflowError):
        return False
    return bool((np.abs(table) < LARGEST).all() and (table[:, 2:] >= 0).all() and flags <= {0, 1})


def _check_annotation(note: dict, images: Container, categories: Container, json_file: str) -> None:
    _require(note, ("image_id", "category_id", "bbox"), "annotation", json_file)
    where = f"{json_file}, annotation {note.get('id', '(no id)')}:"
    for key, known in (("image_id", images), ("category_id", categories)):
        if not is_id(note[key]) or note[key] not in known:
            raise DatasetError(f"{where} there is no {key[:-3]} with id {note[key]!r}.")
    box = note["bbox"]
    if not is_box(box):
        raise DatasetError(f"{where} bbox must be four numbers x, y, width, height, not {box!r}.")
    check_box_range(box, where)
    if box[2] < 0 or box[3] < 0:
        raise DatasetError(
            f"{where} bbox {box} has a negative width or height; it must be x, y, width, height."
        )
    check_flags(note, where)


def check_box_range(box: Sequence[float], where: str) -> None:
    """Raise DatasetError unless all numbers of a box are finite, and not absurdly large."""
    if not all(-LARGEST < value < LARGEST for value in box):
        finite = all(-math.inf < value < math.inf for value in box)
        what = "too large" if finite else "not finite"
        raise DatasetError(f"{where} bbox {box} is {what}: correct it or leave it out.")


def check_flags(note: dict, where: str) -> None:
    """Raise DatasetError unless ``iscrowd`` and ``ignore`` are 0 or 1, true or false, or null."""
    for key in ("iscrowd", "ignore"):
        value = note.get(key)
        if value is not None and (not isinstance(value, int | float) or value not in (0, 1)):
            raise DatasetError(f"{where} {key} must be 0 or 1, not {value!r}.")


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
