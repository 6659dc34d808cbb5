"""What is found by opening the image files themselves: broken and equal ones."""

import hashlib
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from ...errors import DatasetError
from ..images import read_image


@dataclass(frozen=True)
class Pixels:
    """What an image file holds: its upright (width, height) and a digest of its pixels, or an
    error.
    """

    size: tuple[int, int] | None
    digest: bytes
    error: str = ""


def read_pixels(files: Sequence[str], workers: int | None = None) -> dict[str, Pixels]:
    """Decode images, several at a time: Pillow decodes without holding Python's lock.

    Args:
        files: paths of images.
        workers: threads; None: one for each processor, at most 8.
    """
    workers = workers or min(8, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers) as pool:
        return dict(zip(files, pool.map(_read, files)))


def equal_files(files: Iterable[str], pixels: dict[str, Pixels]) -> list[list[str]]:
    """Groups of images that are copies of each other: equal files, or equal pixels where they were
    read. Each group and the groups are in the order of ``files``.
    """
    files = list(dict.fromkeys(files))
    sizes: dict[int, list[str]] = {}
    for file in files:
        if os.path.isfile(file):
            sizes.setdefault(os.path.getsize(file), []).append(file)
    # Only files of the same size can be equal.
    alike = [file for group in sizes.values() if len(group) > 1 for file in group]
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        digests = dict(zip(alike, pool.map(_digest, alike)))
    first: dict[bytes, str] = {}
    groups: dict[str, list[str]] = {}
    for file in files:
        read = pixels.get(file)
        keys = [digests.get(file), read.digest if read else None]
        known = next((first[key] for key in keys if key and key in first), file)
        groups.setdefault(known, []).append(file)
        for key in filter(None, keys):
            first.setdefault(key, known)
    return [group for group in groups.values() if len(group) > 1]


def _read(file: str) -> Pixels:
    try:
        image = read_image(file)
    except DatasetError as error:
        return Pixels(None, b"", str(error))
    height, width = image.shape[:2]
    digest = hashlib.sha256(f"{width} {height} ".encode() + image.tobytes()).digest()
    return Pixels((width, height), digest)


def _digest(file: str) -> bytes:
    with open(file, "rb") as opened:
        return hashlib.sha256(opened.read()).digest()
