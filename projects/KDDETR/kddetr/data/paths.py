"""The files of a data set: whether they exist, and which file was meant where they do not."""

import os
import re
import unicodedata
from collections.abc import Sequence
from urllib.parse import unquote

from detectron2.data import DatasetCatalog

from ..errors import DatasetError

# The names that Detectron2 registers itself, in $DETECTRON2_DATASETS.
BUILT_IN = frozenset(DatasetCatalog.list())


def check_paths(name: str, json_file: str, image_root: str | None) -> None:
    """Raise DatasetError if the file of a data set, or its image folder if known, is missing."""
    for what, path, exists in (
        ("file", json_file, os.path.isfile),
        ("image folder", image_root, os.path.isdir),
    ):
        if path and not exists(path):
            fault = f"is no {what.split()[-1]}" if os.path.exists(path) else "does not exist"
            raise DatasetError(
                f"Data set {name!r}: the {what} {path} {fault}. {advice(path, name)}"
            )


def advice(path: str | os.PathLike, name: str = "") -> str:
    """The sentence that says what to do about a missing file or folder of a data set."""
    path = str(path)
    if name.startswith("quickstart_"):
        return "Make the bundled data with: python tools/make_quickstart_data.py"
    if path.startswith("~"):
        return "Write the full path, without ~."
    if name in BUILT_IN:
        root = os.environ.get("DETECTRON2_DATASETS")
        now = f"is {root}" if root else "is not set, so ./datasets is searched"
        return (
            "Set DETECTRON2_DATASETS to the folder that holds Detectron2's data sets (it "
            f"{now}), or, for a folder of your own, use python tools/train.py DATA --model NAME or "
            "a config such as configs/detectors/custom.py or configs/distill/custom.py."
        )
    meant = similar_file(path)
    if meant:
        return f"Did you mean {meant}?"
    if not os.path.isabs(path):
        return f"Correct the path, which is relative to {os.getcwd()}."
    return "Correct the path."


def check_images_exist(where: str, files: Sequence[str], image_root: str = "") -> None:
    """Raise DatasetError if an image does not exist, with the name of a file that may be meant.

    Each folder is listed once, which is far quicker than looking up each file. Addresses, such as
    ``s3://``, are not looked up.
    """
    split = [os.path.split(file) for file in files if not is_address(file)]
    present = {folder: _files_in(folder) for folder in {folder for folder, _ in split}}
    missing = [os.path.join(*file) for file in split if file[1] not in present[file[0]]]
    # A file system may also find a file under another spelling of its name.
    missing = [file for file in missing if not os.path.isfile(file)]
    if not missing:
        return
    first, meant = missing[0], similar_file(missing[0], image_root)
    what = "does not exist"
    if os.path.islink(first):
        what = f"is a link to {os.readlink(first)}, which does not exist"
    if len(missing) > 1:
        what += f" and {len(missing) - 1} more of its {len(split)} images do not exist"
        what = what.removeprefix("does not exist ")
    raise DatasetError(
        f"{where}: the image {first} {what}{f' (did you mean {meant}?)' if meant else ''}: correct "
        "the image folder or the file names."
    )


def is_address(file: str) -> bool:
    """Whether a file name is an address, such as ``s3://bucket/1.png``; one below a folder is
    none.
    """
    return re.match(r"[a-z][a-z0-9]*://", file, re.IGNORECASE) is not None


def similar_file(path: str, root: str = "") -> str | None:
    """The existing file or folder whose path differs from ``path`` only in ways that are easily
    overlooked.

    These are upper and lower case, slashes, ``%20``, the composition of accents, and folders at
    the beginning that ``root`` already contains.
    """
    if root and path.startswith(root):
        parts = _parts(path[len(root) :])
        tries = [(root, parts[i:]) for i in range(len(parts))]
    else:
        start = os.sep if os.path.isabs(path) else "."
        tries = [(start, _parts(path))]
    for start, parts in tries:
        found = start
        for part in parts:
            found = _entry(found, part)
            if found is None:
                break
        if found not in (None, path) and os.path.exists(found):
            return found
    return None


def _entry(folder: str, name: str) -> str | None:
    """The path of the entry of a folder whose name is spelled like ``name``."""
    if name in ("", ".", "..") or os.path.exists(os.path.join(folder, name)):
        return os.path.join(folder, name)
    try:
        names = sorted(os.listdir(folder))
    except OSError:  # a file, or a folder that may not be read
        return None
    close = (entry for entry in names if _spelling(entry) == _spelling(name))
    return next((os.path.join(folder, entry) for entry in close), None)


def _parts(path: str) -> list[str]:
    return [part for part in unquote(path).replace("\\", "/").split("/") if part]


def _spelling(name: str) -> str:
    return unicodedata.normalize("NFKC", unquote(name)).casefold().strip()


def _files_in(folder: str) -> set[str]:
    """The names of the files of a folder; a link to nowhere is none."""
    if not os.path.isdir(folder or "."):
        return set()
    with os.scandir(folder or ".") as entries:
        return {entry.name for entry in entries if entry.is_file()}
