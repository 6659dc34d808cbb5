"""Making a record: run a teacher over images once, shard by shard, and go on where it stopped."""

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch
from detectron2.data.build import trivial_batch_collator
from safetensors.torch import save
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..checkpoint import atomic_write
from ..data.images import header_size, read_image
from ..errors import StorageError, UsageError
from ..structures import QueryableDetector
from .answers import Answers, best_answers
from .coco_results import answers_from_detections
from .record import (
    CARD,
    CONTENT,
    VERSION,
    RecordedImage,
    file_digest,
    has_content,
    read_card,
    read_content,
    shard_files,
    write_card,
    write_shard,
)

Entry = tuple[RecordedImage, Answers]


class AnswerSource(Protocol):
    """Where the answers of a record come from."""

    # The learned content of the teacher's queries, (rows, C), as far as it has been seen.
    content: Tensor | None

    def __call__(self, images: Sequence[dict]) -> Iterator[Entry]:
        """The answers for dataset dicts, in their order."""


def image_root(images: Sequence[dict]) -> str:
    """The folder that all images are in, directly or below; "" where there is none."""
    folders = [os.path.dirname(os.path.abspath(x["file_name"])) for x in images]
    local = all("://" not in x["file_name"] for x in images)
    return os.path.commonpath(folders) if local else ""


def fingerprint(images: Sequence[dict]) -> str:
    """A hash of which images are recorded, in which order."""
    names = "\n".join(f"{x['file_name']} {'annotations' in x}" for x in images)
    return hashlib.blake2b(names.encode(), digest_size=16).hexdigest()


def make_card(
    *,
    teacher: Mapping[str, Any],
    classes: Sequence[str],
    images: Sequence[dict],
    settings: Mapping[str, int],
    content: int,
    data: str,
    made_by: Mapping[str, Any],
) -> dict[str, Any]:
    """What ``card.json`` says.

    Args:
        teacher: what decides its answers, such as model, checkpoint and hash.
        classes: their names, in the order of its logits.
        images: the dataset dicts.
        settings: ``keep``, ``top_classes`` and ``images_per_shard``.
        content: the width of the learned content of the queries; 0 where they have none.
        data: where the images come from, in words.
        made_by: the program, its config and the like, which may differ when a run goes on.
    """
    card = {
        "version": VERSION,
        "teacher": dict(teacher),
        "classes": list(classes),
        "data": {
            "source": data,
            "image_root": image_root(images),
            "images": len(images),
            "labeled": sum("annotations" in x for x in images),
            "fingerprint": fingerprint(images),
        },
        "settings": dict(settings),
        "content": content,
        "made_by": dict(made_by),
    }
    return json.loads(json.dumps(card))  # as it will be read


def write_record(
    folder: str, card: Mapping[str, Any], images: Sequence[dict], source: AnswerSource
) -> Iterator[str]:
    """Write the shards that are missing, and yield a line about each.

    Args:
        folder: of the record; an unfinished record with the same card is continued.
        card: see :func:`make_card`.
        images: the dataset dicts.
        source: of the answers.

    Raises:
        UsageError: the folder has a record with another card.
        StorageError: it cannot be written.
    """
    path = Path(folder).expanduser()
    if path.exists() and not path.is_dir():
        raise StorageError(f"{folder} is a file: name a folder for the record.")
    path.mkdir(parents=True, exist_ok=True)
    if (path / CARD).is_file():
        _require_same(read_card(path), card, folder)
    else:
        write_card(path, card)
    files, step = shard_files(path, card), card["settings"]["images_per_shard"]
    for i, file in enumerate(files):
        # A file of content that was lost is made again by asking for the answers once more.
        if file.is_file() and (not card["content"] or has_content(path, file)):
            yield f"{file.name} is there already"
            continue
        part, started = images[i * step : (i + 1) * step], time.perf_counter()
        entries = [(_below(card["data"]["image_root"], image), a) for image, a in source(part)]
        _write_content(path, source.content)
        write_shard(file, entries)
        rate = len(part) / (time.perf_counter() - started)
        yield f"{file.name} ({i + 1} of {len(files)}): {len(part)} images, {rate:.1f} a second"


class DetectorSource:
    """The answers of a detector to its own queries.

    Args:
        detector: a frozen one, in evaluation mode.
        mapper: makes its input from a dataset dict, without random augmentation.
        keep, top_classes: see :func:`~kddetr.teachers.answers.best_answers`.
        batch_size: images that it sees at once, where they are of one size.
        num_workers: processes that load images.
    """

    def __init__(
        self,
        detector: QueryableDetector,
        mapper: Callable[[dict], dict | None],
        *,
        keep: int,
        top_classes: int,
        batch_size: int,
        num_workers: int,
    ) -> None:
        self.detector = detector
        self.mapper = mapper
        self.kept = {"keep": keep, "top_classes": top_classes}
        self.loading = {"batch_size": batch_size, "num_workers": num_workers}
        self.content: Tensor | None = None

    @torch.no_grad()
    def __call__(self, images: Sequence[dict]) -> Iterator[Entry]:
        """The best answers of each image."""
        loaded = _Inputs(images, self.mapper)
        at_once = min(self.loading["batch_size"], len(images))
        loading = self.loading | {"batch_size": at_once, "collate_fn": trivial_batch_collator}
        for batch in DataLoader(loaded, **loading):
            inputs, seen = zip(*batch, strict=True)
            yield from zip(seen, self._answers(inputs), strict=True)

    def _answers(self, inputs: Sequence[dict]) -> list[Answers]:
        """The best answers for a batch. Only images of one size are encoded together: padding
        changes what some detectors answer, and a record must not depend on the batches.
        """
        sizes = [tuple(x["image"].shape) for x in inputs]
        found: dict[int, Answers] = {}
        for size in dict.fromkeys(sizes):
            same = [i for i, other in enumerate(sizes) if other == size]
            memory = self.detector.encode([inputs[i] for i in same])
            queries = self.detector.queries(memory)
            if content_width(self.detector):
                self._keep_content(queries.content)
            predictions = self.detector.decode(memory, queries)
            if predictions.classes is not None:
                raise UsageError(
                    "A teacher that lacks some of the classes (Vocabulary with partial=True) cannot"
                    " be recorded: record the teacher without it."
                )
            answers = best_answers(predictions, queries, **self.kept)
            found |= dict(zip(same, answers, strict=True))
        return [found[i] for i in range(len(inputs))]

    def _keep_content(self, content: Tensor) -> None:
        """Keep the (B, N, C) content of queries, which is learned: the same for every image."""
        known, content = self.content, content.float().cpu()
        longest = content[0] if known is None or len(known) < content.shape[1] else known
        if not torch.equal(content, longest[: content.shape[1]].expand_as(content)) or (
            known is not None and not torch.equal(known, longest[: len(known)])
        ):
            raise UsageError(
                "The content of this teacher's queries differs from image to image, and a record"
                " has room for learned content only: give the detector query_parts={}, so that its"
                " queries are recorded as boxes."
            )
        self.content = longest


class ResultsSource:
    """The detections in a file of COCO's results format.

    Args:
        detections: of each image, by its id, see
            :func:`~kddetr.teachers.coco_results.read_results`.
        known: category id to class.
        keep, top_classes: see :func:`~kddetr.teachers.answers.best_answers`.
    """

    content = None

    def __init__(
        self,
        detections: Mapping[Any, Sequence[dict]],
        known: Mapping[Any, int],
        *,
        keep: int,
        top_classes: int,
    ) -> None:
        self.detections = detections
        self.known = known
        self.kept = {"keep": keep, "top_classes": top_classes}

    def __call__(self, images: Sequence[dict]) -> Iterator[Entry]:
        """The answers that the detections of each image stand for."""
        for x in images:
            width, height = header_size(x["file_name"]) or read_image(x["file_name"]).shape[1::-1]
            found = self.detections.get(x["image_id"], ())
            size = (height, width)
            yield (
                _recorded_image(x, size),
                answers_from_detections(found, self.known, size, **self.kept),
            )


def content_width(detector: QueryableDetector) -> int:
    """The width of the learned content of a detector's queries; 0 where it is not recorded.

    Content that comes with a position (one-stage Deformable DETR) belongs to queries that are not
    made of boxes. In place of these the boxes of the answers are recorded.
    """
    parts = detector.query_parts
    return 0 if "position" in parts else parts.get("content", 0)


class _Inputs(Dataset):
    """The detector's input and the facts about an image; files are read in loading processes."""

    def __init__(self, images: Sequence[dict], mapper: Callable[[dict], dict | None]) -> None:
        self.images, self.mapper = images, mapper

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> tuple[dict, RecordedImage]:
        mapped = self.mapper(dict(self.images[i]))
        if mapped is None:
            raise UsageError(f"The mapper returned None for {self.images[i]['file_name']}.")
        mapped.pop("instances", None)
        return mapped, _recorded_image(self.images[i], (mapped["height"], mapped["width"]))


def _recorded_image(x: dict, size: tuple[int, int]) -> RecordedImage:
    name = x["file_name"]
    return RecordedImage(name, file_digest(name), size, "annotations" in x)


def _below(root: str, image: RecordedImage) -> RecordedImage:
    """The image with its file name relative to the root, where there is one."""
    name = os.path.relpath(image.file_name, root) if root else image.file_name
    return replace(image, file_name=name)


def _write_content(folder: Path, content: Tensor | None) -> None:
    """Write the learned content, where there is more of it than in a whole file."""
    if content is None:
        return
    with contextlib.suppress(UsageError):  # missing or damaged
        if len(read_content(folder)) >= len(content):
            return
    whole = save({"content": content.contiguous()})
    atomic_write(str(folder / CONTENT), lambda stream: stream.write(whole))


def _require_same(found: Mapping[str, Any], card: Mapping[str, Any], folder: str) -> None:
    """Refuse to continue a record that was begun with other settings."""
    for part, value in card.items():
        if part != "made_by" and found.get(part) != value:
            raise UsageError(
                f"{folder} has a record that was begun with another {part!r} in its {CARD}: name"
                " another folder, or delete this one."
            )
