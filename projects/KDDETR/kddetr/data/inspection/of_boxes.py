"""Findings about boxes: in other units, outside of their image, without area, repeated, tiny."""

from collections.abc import Sequence

import numpy as np

from ...errors import DatasetError
from ..plausibility import MARGIN, odd_units
from .labels import Labels
from .of_images import SHOWN
from .report import Finding, OddImage

TINY = 8.0  # pixels: one cell of the finest feature map of most detectors
MOST_TINY = 0.1  # of the boxes; more is a warning
MOST_COUNTED = 100  # detections of a class in an image that COCO's metric counts

Marked = list[tuple[Labels, np.ndarray]]  # splits, and (N,) bool which of their boxes are odd


def box_findings(labels: Sequence[Labels], min_size: int, max_size: int) -> list[Finding]:
    """What is odd about the boxes of several splits.

    Args:
        labels: the splits.
        min_size, max_size: to which the detector resizes images, 0 for not at all; tiny is meant
            there.
    """
    total = sum(int(one.counted.sum()) for one in labels)
    return [
        *_units(labels),
        *_degenerate(labels),
        *_outside(labels),
        *_beyond(labels),
        *_repeated(labels),
        *_tiny(labels, min_size, max_size, total),
        *_crowded(labels),
    ]


def _units(labels: Sequence[Labels]) -> list[Finding]:
    """Boxes in fractions, or corners, as the check at the door finds them."""
    findings = []
    for one in labels:
        count = int(one.counted.sum())
        shown = tuple(one.show(int(i)) for i in np.unique(one.image)[:SHOWN])
        try:
            for sentence in odd_units(one.records, one.where):
                findings.append(Finding("other units", "warning", sentence, shown, count))
        except DatasetError as error:
            findings.append(Finding("other units", "error", str(error), shown, count))
    return findings


def _degenerate(labels: Sequence[Labels]) -> list[Finding]:
    marked = [(one, one.counted & (one.boxes[:, 2:] <= 0).any(axis=1)) for one in labels]
    return _finding(
        "boxes without area",
        "warning",
        marked,
        "{boxes} a width or height of 0: training leaves such boxes out, and in evaluation they "
        "count as objects that nothing can find; correct or remove them.",
    )


def _outside(labels: Sequence[Labels]) -> list[Finding]:
    marked = [(one, _sized(one) & ~_inside(one)) for one in labels]
    most = sum(odd.sum() for _, odd in marked) > 0.5 * sum(_sized(one).sum() for one in labels)
    return _finding(
        "boxes outside",
        "error" if most else "warning",
        marked,
        "{boxes} no part inside the image: training leaves such boxes out, and nothing can find "
        "them in evaluation; correct or remove them.",
    )


def _beyond(labels: Sequence[Labels]) -> list[Finding]:
    marked = []
    for one in labels:
        corner, ends, size = _geometry(one)
        beyond = (corner < -MARGIN).any(axis=1) | (ends > size + MARGIN).any(axis=1)
        marked.append((one, _sized(one) & _inside(one) & beyond))
    return _finding(
        "boxes beyond the edge",
        "note",
        marked,
        "{boxes} a part outside the image, which training cuts off.",
    )


def _repeated(labels: Sequence[Labels]) -> list[Finding]:
    marked = []
    for one in labels:
        rows = np.column_stack([one.image, one.label, one.boxes, one.ignored])
        first = np.unique(rows, axis=0, return_index=True)[1] if len(rows) else []
        odd = np.ones(len(rows), dtype=bool)
        odd[first] = False
        marked.append((one, odd & one.counted))
    return _finding(
        "repeated boxes",
        "warning",
        marked,
        "{boxes} the same place and class as another of the image: one of the two can never be "
        "found; remove it.",
    )


def _tiny(labels: Sequence[Labels], min_size: int, max_size: int, total: int) -> list[Finding]:
    marked = []
    for one in labels:
        sides = one.boxes[:, 2:].min(axis=1) * one.scales(min_size, max_size)[one.image]
        marked.append((one, _sized(one) & (sides < TINY)))
    share = sum(int(odd.sum()) for _, odd in marked) / max(total, 1)
    where = f" where the image is resized to {min_size}" * bool(min_size)
    return _finding(
        "tiny boxes",
        "warning" if share > MOST_TINY else "note",
        marked,
        f"{{boxes}} a side of less than {TINY:g} pixels{where} ({share:.1%} of all): such objects "
        "are hardly learned; larger inputs or tiles help.",
    )


def _crowded(labels: Sequence[Labels]) -> list[Finding]:
    shown: list[OddImage] = []
    count = 0
    for one in labels:
        pairs = np.column_stack([one.image, one.label])[one.counted]
        unique, numbers = np.unique(pairs, axis=0, return_counts=True)
        full = np.unique(unique[numbers > MOST_COUNTED][:, 0])
        count += len(full)
        shown += [one.show(int(i)) for i in full[:SHOWN]]
    if not count:
        return []
    images = "1 image has" if count == 1 else f"{count} images have"
    sentence = (
        f"{images} more than {MOST_COUNTED} objects of a class, and COCO's metric "
        f"counts {MOST_COUNTED} detections: raise dataloader.evaluator.max_dets_per_image."
    )
    return [Finding("crowded images", "note", sentence, tuple(shown[:SHOWN]), count)]


def _finding(kind: str, severity: str, marked: Marked, sentence: str) -> list[Finding]:
    """A finding about boxes, in whose sentence ``{boxes}`` becomes their number and a verb."""
    count = sum(int(odd.sum()) for _, odd in marked)
    if not count:
        return []
    shown = [
        one.show(int(i), odd) for one, odd in marked for i in np.unique(one.image[odd])[:SHOWN]
    ]
    boxes = f"{count} box{' has' if count == 1 else 'es have'}"
    return [Finding(kind, severity, sentence.format(boxes=boxes), tuple(shown[:SHOWN]), count)]


def _geometry(one: Labels) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(N, 2) upper left and lower right corners, and the size of the image of each box."""
    corner = one.boxes[:, :2]
    return corner, corner + one.boxes[:, 2:], one.sizes[one.image]


def _sized(one: Labels) -> np.ndarray:
    return one.counted & (one.boxes[:, 2:] > 0).all(axis=1)


def _inside(one: Labels) -> np.ndarray:
    """Which boxes have an area in their image; all where its size is not known."""
    corner, ends, size = _geometry(one)
    return (np.fmin(ends, size) > np.fmax(corner, 0)).all(axis=1)
