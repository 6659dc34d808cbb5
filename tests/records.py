"""Records of tiny teachers, for tests."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from kddetr.data import DetectionMapper
from kddetr.structures import QueryableDetector
from kddetr.teachers.answers import answers_of
from kddetr.teachers.record import RecordedImage, file_digest, write_card, write_shard
from kddetr.teachers.recording import DetectorSource, content_width, make_card, write_record

SIZES = ((40, 56), (48, 40), (64, 48))  # (height, width)


def image_files(folder: Path, sizes: Sequence[tuple[int, int]] = SIZES) -> list[dict]:
    """Dataset dicts of new image files of random pixels."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, images = np.random.default_rng(0), []
    for i, size in enumerate(sizes):
        path = folder / f"{i}.png"
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)
        images.append({"file_name": str(path), "image_id": i})
    return images


def record_of(
    detector: QueryableDetector,
    folder: Path,
    images: Sequence[dict],
    *,
    keep: int = 100,
    top_classes: int = 10,
    images_per_shard: int = 2,
) -> str:
    """Record a detector's answers for images, with the classes class1, class5, class9, ..."""
    settings = {"keep": keep, "top_classes": top_classes}
    mapper = DetectionMapper(is_train=False, augmentations=[])
    source = DetectorSource(detector, mapper, batch_size=2, num_workers=0, **settings)
    card = make_card(
        teacher={},
        classes=[f"class{1 + 4 * i}" for i in range(detector.num_classes)],
        images=images,
        settings=settings | {"images_per_shard": images_per_shard},
        content=content_width(detector),
        data="a test",
        made_by={},
    )
    for _ in write_record(str(folder), card, images, source):
        pass
    return str(folder)


def random_record(
    folder: Path, images: Sequence[dict], counts: Sequence[int], *, classes: int = 3
) -> str:
    """Write random answers, ``counts`` of them for each image."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"class{1 + 4 * i}" for i in range(classes)]
    settings = {"keep": 100, "top_classes": 10, "images_per_shard": len(images)}
    facts = {"teacher": {}, "content": 0, "data": "a test", "made_by": {}}
    write_card(folder, make_card(classes=names, images=images, settings=settings, **facts))
    generator, entries = torch.Generator().manual_seed(0), []
    for x, count in zip(images, counts, strict=True):
        boxes = 0.3 + 0.3 * torch.rand(count, 4, generator=generator)
        logits = 3 * torch.randn(count, classes, generator=generator)
        logits = logits[logits.amax(1).argsort(descending=True)]
        with Image.open(x["file_name"]) as image:
            size = image.size[::-1]
        seen = RecordedImage(Path(x["file_name"]).name, file_digest(x["file_name"]), size, False)
        rows = torch.zeros(count, dtype=torch.int64)
        entries.append((seen, answers_of(logits, boxes, boxes, rows, top_classes=10)))
    write_shard(folder / "answers_00000.safetensors", entries)
    return str(folder)
