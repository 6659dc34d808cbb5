"""Folders of images without labels."""

import logging
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from PIL import Image

from ..errors import DatasetError

_log = logging.getLogger(__name__)

# Formats that Pillow recognises without being able to read their pixels by itself.
NOT_READ = {"BUFR", "EPS", "GRIB", "HDF5", "IPTC", "MPEG", "WMF"}


def load_image_folder(*, image_root: str) -> list[dict]:
    """The images below a folder, sorted by path, as unlabelled dataset dicts; "" gives none.

    Links to folders are followed. Files and folders whose names begin with a dot are left out.
    Other files that are no images, and links to nowhere, are counted in a warning.

    Args:
        image_root: the folder; "" for none.

    Raises:
        DatasetError: the folder does not exist or holds no image.
    """
    if not image_root:
        return []
    files, others = list_images(image_root)
    if others:
        _log.warning(
            "%s: %d of %d files are passed over, because they are no images that Pillow can read, "
            "or links to nowhere: %s%s.",
            image_root,
            len(others),
            len(files) + len(others),
            ", ".join(map(str, others[:3])),
            ", ..." if len(others) > 3 else "",
        )
    return [{"file_name": str(path), "image_id": i} for i, path in enumerate(files)]


def list_images(image_root: str) -> tuple[list[Path], list[Path]]:
    """The images below a folder, and its other files, both sorted by path.

    Raises:
        DatasetError: the folder does not exist or holds no image.
    """
    root = Path(image_root).expanduser()
    files, others = [], []
    for path in files_below(root):
        is_image = path.suffix.lower() in image_suffixes() and path.is_file()
        (files if is_image else others).append(path)
    if not files:
        reason = "holds no image" if root.is_dir() else "is not a folder"
        raise DatasetError(f"{root} {reason}: name the folder of your unlabelled images.")
    return sorted(files), sorted(others)


@cache
def image_suffixes() -> frozenset[str]:
    """The suffixes, in lower case, of still images that Pillow and its plugins can read."""
    known = Image.registered_extensions().items()
    return frozenset(s.lower() for s, kind in known if kind in Image.OPEN and kind not in NOT_READ)


def files_below(root: Path) -> Iterator[Path]:
    """Every file below a folder; a folder that links lead to several times is entered once. Files
    and folders whose names begin with a dot are left out.
    """
    entered = set()
    for folder, folders, names in os.walk(root, followlinks=True):
        here = os.path.realpath(folder)
        if here in entered:
            folders.clear()
            continue
        entered.add(here)
        folders[:] = sorted(name for name in folders if name[0] != ".")
        yield from (Path(folder, name) for name in names if name[0] != ".")
