"""What Detectron2's catalog calls for a registered data set that a config names.

Detectron2's own reader of COCO files stops with an assertion at files that other programs read,
such as one with boxes to ignore, and nobody checks what a function of the user returns.
"""

import logging
import os
import traceback
from collections.abc import Callable

from detectron2.data import DatasetCatalog, MetadataCatalog

from ..errors import DatasetError, UserError
from .coco import load_registered, no_collection
from .paths import BUILT_IN, advice
from .records import plain_records

_log = logging.getLogger(__name__)
_DETECTRON2 = "detectron2.data.datasets.coco"  # the module of register_coco_instances


def use_checked_reader(name: str) -> None:
    """Make Detectron2's catalog give the records of a registered data set through
    :class:`CheckedReader`. Doing it again changes nothing.
    """
    reader = DatasetCatalog[name]
    if not isinstance(reader, CheckedReader) and not _module(reader).startswith("kddetr."):
        DatasetCatalog[name] = CheckedReader(name, reader)


def check_metadata(name: str) -> None:
    """Raise DatasetError if code has set metadata of a data set to values of another type."""
    metadata = MetadataCatalog.get(name)
    kinds = {
        "json_file": (str | os.PathLike, "a path"),
        "image_root": (str | os.PathLike, "a path"),
        "thing_classes": (list | tuple, "a list of names"),
        "thing_dataset_id_to_contiguous_id": (dict, "a dict of numbers"),
    }
    for key, (kind, what) in kinds.items():
        value = metadata.get(key)
        if value is not None and not isinstance(value, kind):
            raise DatasetError(
                f"Data set {name!r}: {key} in its metadata must be {what}, not {value!r}."
            )
    for value in metadata.get("thing_classes") or ():
        if not isinstance(value, str):
            raise DatasetError(
                f"Data set {name!r}: thing_classes in its metadata must be names, not {value!r}."
            )


def reads_coco_file(name: str) -> bool:
    """Whether the records of a data set are those of the COCO file in its metadata."""
    ours = _module(_function(name)).startswith("kddetr.")
    return bool(MetadataCatalog.get(name).get("json_file")) and (ours or read_by_detectron2(name))


def read_by_detectron2(name: str) -> bool:
    """Whether Detectron2's ``register_coco_instances`` has registered a data set."""
    return _module(_function(name)) == _DETECTRON2


class CheckedReader:
    """The records of a registered data set, checked and with plain numbers.

    A COCO file at which Detectron2's reader stops is read by :func:`load_registered`.

    Args:
        name: the registered name.
        function: what was registered: it takes no argument and returns dataset dicts.
    """

    def __init__(self, name: str, function: Callable[[], list[dict]]):
        self.name = name
        self.function = function

    def __call__(self) -> list[dict]:
        """Read the records.

        Raises:
            DatasetError: the function fails, or returns something that is not a data set.
        """
        metadata = MetadataCatalog.get(self.name)
        if reads_coco_file(self.name):
            try:
                return self.function()
            except Exception as error:  # an assertion, a missing key, another encoding, ...
                records = load_registered(self.name, metadata.json_file, metadata.image_root)
                _log.info(
                    "Detectron2's reader stops at %s (%s: %s), so it was read as load_coco_format "
                    "reads it, with boxes only.",
                    metadata.json_file,
                    type(error).__name__,
                    str(error).split("\n")[0],
                )
                return records
        try:
            records = self.function()
        except UserError:
            raise
        except Exception as error:
            raise DatasetError(_failure(self.name, error)) from error
        classes = metadata.get("thing_classes") or None
        with no_collection():
            return plain_records(records, f"Data set {self.name!r}", classes)


def _failure(name: str, error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    place = frames[min(1, len(frames) - 1)]  # in the function itself, and not in what it calls
    hint = "correct it."
    if name in BUILT_IN:
        hint = advice("", name)
    elif isinstance(error, ImportError):
        hint = "install what it needs."
    elif isinstance(error, AssertionError) and "ignore" in str(error):
        hint = (
            "register the file with Detectron2's register_coco_instances instead, or name it with "
            "load_coco_format; both leave such boxes out here."
        )
    return (
        f"The function that is registered as data set {name!r} fails with {type(error).__name__}: "
        f"{str(error).splitlines()[0] if str(error) else 'no message'} ({place.filename}, line "
        f"{place.lineno}): {hint}"
    )


def _function(name: str) -> Callable:
    reader = DatasetCatalog[name]
    return reader.function if isinstance(reader, CheckedReader) else reader


def _module(function: Callable) -> str:
    return getattr(getattr(function, "func", function), "__module__", "") or ""
