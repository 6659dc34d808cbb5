"""Checks of the dataset dicts that a function of the user returns, and their plain form.

Detectron2 believes such dicts: a class from 1 to K trains the wrong class, a missing ``image_id``
ends the first evaluation. Numbers of numpy and torch, tuples and arrays are converted to Python's.
"""

import logging
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from detectron2.structures import BoxMode

from ..errors import DatasetError
from .entries import (
    LARGEST,
    check_box_range,
    check_distinct,
    check_flags,
    check_listed_once,
    is_box,
    is_left_out,
    is_text,
)
from .paths import is_address

_log = logging.getLogger(__name__)
_PYTHONS = {int, float, str, bool, list, tuple, dict, type(None), BoxMode}
_PIXELS = {BoxMode.XYXY_ABS, BoxMode.XYWH_ABS}


def plain_records(records: Any, where: str, classes: Sequence[str] | None) -> list[dict]:
    """Dataset dicts with Python's own numbers, in which ``iscrowd`` says what is left out.

    Args:
        records: what the function returned.
        where: what messages begin with, such as ``Data set 'mine'``.
        classes: the names of the classes; None: unknown.

    Raises:
        DatasetError: the records are not a list of dicts, or one of them is invalid.
    """
    if not isinstance(records, list | tuple):
        raise DatasetError(
            f"{where}: its function must return a list of dicts, not a {type(records).__name__}."
        )
    plain = [_plain_record(record, f"{where}, record {i}") for i, record in enumerate(records)]
    for i, record in enumerate(plain):
        if "annotations" in record:
            _plain_annotations(record, f"{where}, record {i} ({record['file_name']})", classes)
    ignored = sum(bool(n.get("ignore")) for r in plain for n in r.get("annotations", ()))
    if ignored:
        _log.info("%s: %d boxes say ignore, and are left out as crowds are.", where, ignored)
    files = {i: record["file_name"] for i, record in enumerate(plain)}
    check_listed_once(
        {i: f if is_address(f) else os.path.normpath(f) for i, f in files.items()}, where
    )
    return plain


def check_for_evaluation(records: Sequence[dict], where: str) -> None:
    """Raise DatasetError unless every plain record has an ``image_id`` of its own."""
    for i, record in enumerate(records):
        if "image_id" not in record:
            raise DatasetError(
                f"{where}, record {i} ({record['file_name']}) has no 'image_id', which evaluation "
                "needs: give each image its own."
            )
    check_distinct([record["image_id"] for record in records], "image", "images", where)


def _plain_record(record: Any, where: str) -> dict:
    if not isinstance(record, dict):
        raise DatasetError(f"{where} must be a dict, not a {type(record).__name__}.")
    file = record.get("file_name")
    if not isinstance(file, str | os.PathLike) or not is_text(str(file)):
        raise DatasetError(f"{where} needs a 'file_name' that is a path, not {file!r}.")
    plain = {key: _python(value) for key, value in record.items()}
    plain["file_name"] = os.fspath(file)
    for key in ("height", "width"):
        value = plain.get(key)
        if value is None:
            plain.pop(key, None)
        elif not (_is_whole(value) and 0 < value < LARGEST):
            raise DatasetError(f"{where}: {key} must be a number of pixels, not {value!r}.")
        else:
            plain[key] = int(value)
    if plain.get("image_id", 0) is None:
        del plain["image_id"]
    return plain


def _plain_annotations(record: dict, where: str, classes: Sequence[str] | None) -> None:
    """Replace the annotations of a plain record by plain ones."""
    notes = record["annotations"]
    if not isinstance(notes, list | tuple):
        raise DatasetError(f"{where}: 'annotations' must be a list, not {notes!r}.")
    record["annotations"] = [
        _plain_annotation(note, f"{where}, annotation {i}:", classes)
        for i, note in enumerate(notes)
    ]


def _plain_annotation(note: Any, where: str, classes: Sequence[str] | None) -> dict:
    if not isinstance(note, dict):
        raise DatasetError(f"{where} it must be a dict, not {note!r}.")
    for key in ("bbox", "bbox_mode", "category_id"):
        if key not in note:
            hint = " (BoxMode.XYWH_ABS or BoxMode.XYXY_ABS)" if key == "bbox_mode" else ""
            raise DatasetError(f"{where} it has no {key!r}{hint}.")
    plain = {key: _python(value) for key, value in note.items()}
    box = note["bbox"].tolist() if hasattr(note["bbox"], "tolist") else note["bbox"]
    plain["bbox"] = list(map(_python, box)) if isinstance(box, list | tuple) else box
    _check_box(plain, where)
    plain["bbox_mode"] = BoxMode(plain["bbox_mode"])
    plain["category_id"] = _class(plain["category_id"], where, classes)
    check_flags(plain, where)
    plain["iscrowd"] = int(is_left_out(plain))
    return plain


def _check_box(note: dict, where: str) -> None:
    box, mode = note["bbox"], note["bbox_mode"]
    if not is_box(box):
        raise DatasetError(f"{where} bbox must be four numbers, not {box!r}.")
    check_box_range(box, where)
    if not isinstance(mode, int) or isinstance(mode, bool) or mode not in _PIXELS:
        raise DatasetError(
            f"{where} bbox_mode must be BoxMode.XYWH_ABS or BoxMode.XYXY_ABS, not {mode!r}."
        )
    ends = box if mode == BoxMode.XYXY_ABS else [0, 0, *box[2:]]
    if ends[2] < ends[0] or ends[3] < ends[1]:
        raise DatasetError(
            f"{where} bbox {box} has a negative width or height in {BoxMode(mode).name}: correct "
            "it or its bbox_mode."
        )


def _class(value: Any, where: str, classes: Sequence[str] | None) -> int:
    if not _is_whole(value):
        raise DatasetError(f"{where} category_id must be a whole number, not {value!r}.")
    if value < 0 or (classes is not None and value >= len(classes)):
        known = "" if classes is None else f" to {len(classes) - 1}, the last of thing_classes"
        raise DatasetError(
            f"{where} category_id is {int(value)}: a function that is registered must number the "
            f"classes from 0{known}."
        )
    return int(value)


def _is_whole(value: Any) -> bool:
    return type(value) is int or (type(value) is float and value.is_integer())


def _python(value: Any) -> Any:
    """A number of numpy or torch as Python's, anything else as it is."""
    if type(value) in _PYTHONS:  # almost all, which need no closer look
        return value
    if isinstance(value, np.generic) or (hasattr(value, "item") and getattr(value, "ndim", 1) == 0):
        return value.item()
    return value
