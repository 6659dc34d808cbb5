"""Goes through labelled data and collects everything that is odd."""

from collections.abc import Iterable

import numpy as np

from ..images import spread
from ..layouts import DataFolder
from .labels import LARGE, SMALL, Labels, read_labels
from .of_boxes import box_findings
from .of_classes import class_findings
from .of_images import image_findings
from .pixels import read_pixels
from .report import SEVERITIES, DataReport, OddImage, SplitCounts

SAMPLES = 8


def inspect_data(
    data: DataFolder,
    *,
    min_size: int = 800,
    max_size: int = 1333,
    max_images: int = 10_000,
    workers: int | None = None,
) -> DataReport:
    """Look at all labels and at the pixels of the images of a data folder.

    Args:
        data: what :func:`~kddetr.data.find_data` returns.
        min_size, max_size: to which the detector resizes images: the short side becomes
            ``min_size``, or the long side ``max_size`` where it would be longer. With ``min_size``
            0 images are taken as they are.
        max_images: at most so many images are decoded, evenly spread; a note says if it is fewer.
        workers: threads that decode; None: one for each processor, at most 8.

    Raises:
        DatasetError: an annotation file cannot be read.
    """
    splits = {"train": data.train, "val": data.val, "test": data.test}
    labels = [read_labels(name, split) for name, split in splits.items() if split]
    files = [file for one in labels for file in one.files]
    seen = spread(files, max_images)
    pixels = read_pixels(seen, workers)
    notes = list(data.notes)
    if len(seen) < len(files):
        notes.append(
            f"{len(seen):,} of the {len(files):,} images were decoded, evenly spread: others may "
            "be broken too."
        )
    number = len(data.classes)
    findings = [
        *image_findings(labels, pixels),
        *box_findings(labels, min_size, max_size),
        *class_findings(labels, data.classes),
    ]
    findings.sort(key=lambda finding: SEVERITIES.index(finding.severity))
    counts = {one.split: _counts(one, number, min_size, max_size) for one in labels}
    return DataReport(data, counts, findings, _samples(labels), min_size, max_size, notes)


def _counts(labels: Labels, classes: int, min_size: int, max_size: int) -> SplitCounts:
    kept = labels.counted
    sides = np.sqrt(labels.boxes[kept, 2] * labels.boxes[kept, 3])
    scales = labels.scales(min_size, max_size)[labels.image[kept]]
    per_image = np.bincount(labels.image[kept], minlength=len(labels.files))
    return SplitCounts(
        images=len(labels.files),
        boxes=int(kept.sum()),
        ignored=int(labels.ignored.sum()),
        empty=int((per_image == 0).sum()),
        of_class=np.bincount(labels.label[kept], minlength=classes),
        evaluated=_by_size(sides),
        trained=_by_size(sides * scales),
        sides=sides,
        per_image=per_image,
        widths=labels.sizes[:, 0],
        heights=labels.sizes[:, 1],
    )


def _by_size(sides: np.ndarray) -> tuple[int, int, int]:
    small, large = int((sides < SMALL).sum()), int((sides >= LARGE).sum())
    return small, len(sides) - small - large, large


def _samples(labels: Iterable[Labels]) -> list[OddImage]:
    """Images with boxes, evenly spread over the first split."""
    first = next(iter(labels))
    with_boxes = np.unique(first.image[first.counted])
    return [first.show(int(i)) for i in spread(with_boxes, SAMPLES)]
