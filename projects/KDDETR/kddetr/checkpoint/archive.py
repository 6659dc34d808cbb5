"""Checks of the zip archive that a ``.pth`` file is, without which damage would go unseen.

PyTorch maps such a file into memory and compares neither the checksums nor the lengths of its
parts: changed bytes would be loaded as other weights.

Each check raises a ValueError that says what is wrong.
"""

import functools
import os
import time
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch

_CHUNK = 2**20  # bytes
_SETTLED = 2.0  # seconds after which another change of a file gets another time of change


def check_parts(file: str) -> tuple[int, ...]:
    """Compare all parts of an archive with their checksums, once as long as it does not change.

    Returns:
        The numbers of bytes of the parts that hold tensors.

    Raises:
        ValueError: a part is damaged or compressed. PyTorch writes uncompressed parts, and those of
            a file that was zipped again would be read as if they were.
    """
    now = os.stat(file)
    version = (now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns)
    settled = time.time() - max(now.st_mtime, now.st_ctime) > _SETTLED
    return (_checked if settled else _checked.__wrapped__)(os.path.abspath(file), version)


@functools.lru_cache(maxsize=32)
def _checked(file: str, version: tuple[int, ...]) -> tuple[int, ...]:
    lengths = []
    with zipfile.ZipFile(file) as archive:
        for part in archive.infolist():
            if part.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"its part {part.filename} was compressed by another program")
            if "/data/" in f"/{part.filename}":
                lengths.append(part.file_size)
            if part.CRC == 0:
                continue  # torch.serialization.set_crc32_options(False) leaves it out
            try:
                with archive.open(part) as stream:
                    while stream.read(_CHUNK):
                        pass
            except zipfile.BadZipFile as error:
                raise ValueError(f"its part {part.filename} is damaged") from error
    return tuple(lengths)


def check_lengths(data: Any, lengths: Iterable[int]) -> None:
    """Compare the tensors that were read with the lengths of the parts they are in.

    Raises:
        ValueError: a tensor is longer or shorter than its part.
    """
    storages = {}
    for tensor in _tensors(data):
        if not tensor.is_meta and tensor.layout == torch.strided and not tensor.is_nested:
            storage = tensor.untyped_storage()
            storages[storage.data_ptr(), storage.nbytes()] = storage.nbytes()
    if Counter(storages.values()) - Counter(lengths):
        raise ValueError("a tensor has another length than its part of the file")


def _tensors(node: Any) -> Iterator[torch.Tensor]:
    if isinstance(node, torch.Tensor):
        yield node
    elif isinstance(node, Mapping | list | tuple | set):
        for item in node.values() if isinstance(node, Mapping) else node:
            yield from _tensors(item)
