"""A record on disk: what a teacher answered for many images.

A record is a folder. ``card.json`` says who answered and what about. ``answers_00000.safetensors``
and those that follow are its shards: the answers for a number of images, one image after the other,
and which images they are. ``content.safetensors`` has the teacher's learned content embeddings
where its queries have them. Nothing in these files is code, and each is written completely or not
at all.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from detectron2.utils.file_io import PathManager
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from ..checkpoint import atomic_write
from ..errors import DatasetError, UsageError
from .answers import Answers

VERSION = 1
CARD, CONTENT = "card.json", "content.safetensors"
_ARRAYS = tuple(field.name for field in fields(Answers))
_MADE_BY = "tools/record_teacher.py"


@dataclass(frozen=True)
class RecordedImage:
    """Which image answers are for.

    Attributes:
        file_name: relative to the ``image_root`` of the card, for messages and pseudo-labels; an
            image is recognised by its digest, so its file may be moved.
        digest: of the bytes of its file, see :func:`file_digest`.
        size: (height, width) of the file in pixels.
        labeled: whether it was labelled in the data that the teacher was run over.
    """

    file_name: str
    digest: bytes
    size: tuple[int, int]
    labeled: bool


def file_digest(file_name: str) -> bytes:
    """The BLAKE2b digest of a file's bytes, 16 bytes long.

    Raises:
        DatasetError: the file does not exist.
    """
    try:
        with PathManager.open(file_name, "rb") as file:
            return hashlib.blake2b(file.read(), digest_size=16).digest()
    except FileNotFoundError as error:
        raise DatasetError(
            f"The image {file_name} does not exist: correct the file name in the data set."
        ) from error


def shard_files(folder: Path, card: Mapping[str, Any]) -> list[Path]:
    """The files of all shards of a record, written or not."""
    count = -(-card["data"]["images"] // card["settings"]["images_per_shard"])
    return [folder / f"answers_{i:05d}.safetensors" for i in range(count)]


def write_shard(file: Path, entries: Iterable[tuple[RecordedImage, Answers]]) -> None:
    """Write the images of a shard and their answers."""
    images, answers = zip(*entries, strict=True)
    arrays = {n: torch.cat([getattr(one, n) for one in answers]) for n in _ARRAYS}
    arrays["counts"] = torch.tensor([len(one) for one in answers], dtype=torch.int32)
    arrays["digests"] = torch.tensor([list(i.digest) for i in images], dtype=torch.uint8)
    arrays["sizes"] = torch.tensor([i.size for i in images], dtype=torch.int32)
    arrays["labeled"] = torch.tensor([i.labeled for i in images])
    names = {"file_names": json.dumps([i.file_name for i in images])}
    whole = save({n: a.contiguous() for n, a in arrays.items()}, metadata=names)
    atomic_write(str(file), lambda stream: stream.write(whole))


def write_card(folder: Path, card: Mapping[str, Any]) -> None:
    """Write the card of a record."""
    text = json.dumps(card, indent=1, ensure_ascii=False)
    atomic_write(str(folder / CARD), lambda stream: stream.write(text.encode()))


def read_card(folder: Path) -> dict[str, Any]:
    """The card of a record.

    Raises:
        UsageError: there is none, or it is damaged or of a later version.
    """
    file = folder / CARD
    if not file.is_file():
        raise UsageError(
            f"{folder} is not a record of a teacher, because it has no {CARD}: make one with"
            f" {_MADE_BY}."
        )
    damaged = f"{file} is damaged: make the record again with {_MADE_BY}."
    try:
        card = json.loads(file.read_text(encoding="utf-8"))
        version = card["version"]
    except (ValueError, LookupError, TypeError) as error:
        raise UsageError(damaged) from error
    if version != VERSION:
        raise UsageError(
            f"{file} is of version {version}, and this program reads version {VERSION}: make the"
            f" record again with {_MADE_BY}."
        )
    try:
        names, content = card["classes"], card["content"]
        numbers = (card["data"]["images"], card["settings"]["images_per_shard"])
        whole = all(type(number) is int for number in (*numbers, content))
        whole = whole and min(numbers) >= 1 and content >= 0
        whole = whole and bool(names) and all(isinstance(name, str) for name in names)
    except (LookupError, TypeError) as error:
        raise UsageError(damaged) from error
    if not whole:
        raise UsageError(damaged)
    return card


class Record:
    """A finished record, opened for reading: its files are mapped into memory, not loaded.

    Args:
        folder: of the record.

    Attributes:
        card: the content of its card.
        classes: the names of the K classes, in the order of the logits.
        content: (rows, C) float32 learned content of the teacher's queries, or None.
        most: the largest number of answers for an image.

    Raises:
        UsageError: the folder has no record, or one that is unfinished or damaged.
    """

    def __init__(self, folder: str) -> None:
        if not folder:
            raise UsageError(
                "A recorded teacher needs the folder of its record: name it with its argument path"
                f" (in a config model.teacher.path=FOLDER), and make it with {_MADE_BY}."
            )
        self.folder = Path(folder).expanduser()
        self.card = read_card(self.folder)
        self.classes: tuple[str, ...] = tuple(self.card["classes"])
        files = shard_files(self.folder, self.card)
        if missing := [file for file in files if not file.is_file()]:
            raise UsageError(
                f"The record {folder} is unfinished: {len(missing)} of its {len(files)} files are"
                " missing; give the command that made it again, and it goes on."
            )
        self._shards = [_read(file) for file in files]
        self.content = None
        if self.card["content"]:
            self.content = read_content(self.folder)
        self._index: dict[bytes, tuple[_Shard, int]] = {}
        for shard in self._shards:
            for i, image in enumerate(shard.images):
                # Of copies of one image the one with the most answers counts.
                other = self._index.get(image.digest)
                if other is None or shard.count(i) > other[0].count(other[1]):
                    self._index[image.digest] = (shard, i)
        self.most = max(int(shard.arrays["counts"].max()) for shard in self._shards)

    def __iter__(self) -> Iterator[tuple[RecordedImage, Answers]]:
        """All images and their answers, in the order in which they were recorded."""
        for shard in self._shards:
            for i, image in enumerate(shard.images):
                yield image, self._answers(shard, i)

    def find(self, digest: bytes) -> tuple[RecordedImage, Answers] | None:
        """The image whose file has this digest, and its answers; None where there is none."""
        if digest not in self._index:
            return None
        shard, i = self._index[digest]
        return shard.images[i], self._answers(shard, i)

    def has_name(self, file_name: str) -> bool:
        """Whether an image of this name, without its folder, was recorded."""
        name = Path(file_name).name
        return any(Path(i.file_name).name == name for s in self._shards for i in s.images)

    def _answers(self, shard: "_Shard", i: int) -> Answers:
        """The answers for an image of a shard. They are checked here, because a damaged file may
        have all its arrays and wrong numbers in them.
        """
        answers = shard.answers(i)
        known = [(answers.classes, len(self.classes))]
        if self.content is not None:
            known.append((answers.rows, len(self.content)))
        numbers = (answers.boxes, answers.logits, answers.rest, answers.queries)
        if not all(((index >= 0) & (index < end)).all() for index, end in known) or not all(
            values.isfinite().all() for values in numbers
        ):
            raise UsageError(_damaged(shard.file))
        return answers


@dataclass(frozen=True)
class _Shard:
    """The images of a shard, where the answers of each end, and the arrays in its file."""

    file: Path
    images: list[RecordedImage]
    ends: list[int]
    arrays: dict[str, Tensor]

    def count(self, i: int) -> int:
        return self.ends[i] - (self.ends[i - 1] if i else 0)

    def answers(self, i: int) -> Answers:
        part = slice(self.ends[i - 1] if i else 0, self.ends[i])
        return Answers(**{name: self.arrays[name][part] for name in _ARRAYS})


def _read(file: Path) -> _Shard:
    arrays = _load(file)
    try:
        with safe_open(file, framework="pt") as opened:
            names = json.loads(opened.metadata()["file_names"])
        digests, sizes = arrays["digests"].numpy(), arrays["sizes"].tolist()
        facts = zip(names, digests, sizes, arrays["labeled"].tolist(), strict=True)
        images = [RecordedImage(n, bytes(d), (s[0], s[1]), known) for n, d, s, known in facts]
        ends = arrays["counts"].cumsum(0).tolist()
        lengths = {len(arrays[name]) for name in _ARRAYS}
    except (LookupError, ValueError, TypeError) as error:
        raise UsageError(_damaged(file)) from error
    if lengths != {ends[-1]} or len(ends) != len(images):
        raise UsageError(_damaged(file))
    return _Shard(file, images, ends, arrays)


def read_content(folder: Path) -> Tensor:
    """The (rows, C) float32 learned content in a record.

    Raises:
        UsageError: its file is missing or damaged.
    """
    file = folder / CONTENT
    content = _load(file).get("content")
    if content is None or content.dim() != 2:
        raise UsageError(_damaged(file))
    return content.float()


def has_content(folder: Path, shard: Path) -> bool:
    """Whether a record has the learned content of all queries of a shard."""
    rows = _load(shard)["rows"]
    try:
        return not len(rows) or int(rows.max()) < len(read_content(folder))
    except UsageError:
        return False


def _load(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise UsageError(_damaged(file)) from error


def _damaged(file: Path) -> str:
    return (
        f"{file} is damaged: delete it, and give the command that made the record again, which"
        " makes only this file anew."
    )
