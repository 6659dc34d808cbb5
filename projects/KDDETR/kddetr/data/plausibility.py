"""A check that boxes are x, y, width, height in pixels, and not corners or fractions.

Corners ``x0, y0, x1, y1`` and fractions of the image are four valid numbers too, so only the boxes
of a data set together show the mistake. Most of them decide: a few that differ change nothing.

Shape letters: N boxes, crowds not counted.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from detectron2.structures import BoxMode

from ..errors import DatasetError

MIN_BOXES = 10  # fewer boxes may all be unusual by chance, and are only warned of
MARGIN = 1.0  # pixels, because annotation programs round
ROUNDING = 1.05  # the largest number of a box in fractions that was rounded or reaches beyond


def check_boxes(
    records: Sequence[dict], where: str, sizes: Mapping[str, tuple[int, int]] | None = None
) -> tuple[int, list[str]]:
    """Check the boxes of dataset dicts, in pixels.

    Args:
        records: dicts whose annotations have ``bbox``, ``bbox_mode`` and ``iscrowd``.
        where: what messages begin with: the annotation file.
        sizes: (width, height) by ``file_name``, for images whose dict does not say it. The boxes of
            an image of unknown size are not compared with it.

    Returns:
        The number of boxes that have an area inside their image, crowds not counted, and sentences
        to warn with.

    Raises:
        DatasetError: most boxes are corners, fractions of the image, or outside of their image.
    """
    table = _table(records, sizes or {})
    count, sized = len(table), (table[:, 2:4] > 0).all(axis=1)
    beyond, inside = _beyond(table), _inside(table)
    warnings = _odd_units(table, where)
    outside = sized & ~inside
    if _most(outside, sized) and sized.sum() >= MIN_BOXES:
        raise DatasetError(
            f"{where}: {outside.sum()} of {count} boxes lie outside of their image: write boxes "
            "in pixels of the image file, as x, y, width, height."
        )
    if not inside.all():
        warnings.append(
            f"{where}: {(~inside).sum()} of {count} boxes have no area in their image; training "
            "leaves them out, and no detection can match them in evaluation."
        )
    if (inside & beyond).any():
        often = "" if not _most(beyond, sized) else " Are they in pixels of another size of image?"
        warnings.append(
            f"{where}: {(inside & beyond).sum()} of {count} boxes reach beyond their image; "
            f"training clips them at its edge.{often}"
        )
    return int(inside.sum()), warnings


def odd_units(records: Sequence[dict], where: str) -> list[str]:
    """The sentences of :func:`check_boxes` about boxes that seem to be no pixels, or corners.

    Raises:
        DatasetError: most boxes seem to be.
    """
    return _odd_units(_table(records, {}), where)


def boxes_outside(records: Sequence[dict], sizes: Mapping[str, tuple[int, int]]) -> int:
    """The number of boxes with a size that have no area inside their image; the arguments are those
    of :func:`check_boxes`.
    """
    table = _table(records, sizes)
    return int(((table[:, 2:4] > 0).all(axis=1) & ~_inside(table)).sum())


def _odd_units(table: np.ndarray, where: str) -> list[str]:
    sized = (table[:, 2:4] > 0).all(axis=1)
    return [
        *_fractions(table, sized, where),
        *_corners(table, sized & _beyond(table), where),
        *_other_units(table, sized, where),
    ]


def _beyond(table: np.ndarray) -> np.ndarray:
    """Which boxes reach beyond their image, by more than annotation programs round."""
    x, y, w, h, width, height = table.T
    upper_left = (x < -MARGIN) | (y < -MARGIN)
    return upper_left | (x + w > width + MARGIN) | (y + h > height + MARGIN)


def _inside(table: np.ndarray) -> np.ndarray:
    """Which boxes have an area in their image; a size that is not known is NaN, which fmin and fmax
    ignore.
    """
    x, y, w, h, width, height = table.T
    return (np.fmin(x + w, width) > np.fmax(x, 0)) & (np.fmin(y + h, height) > np.fmax(y, 0))


def _fractions(table: np.ndarray, sized: np.ndarray, where: str) -> list[str]:
    """Refuse or warn of boxes within the first pixel of an image that has more of them."""
    boxes, width, height = table[:, :4], table[:, 4], table[:, 5]
    judged = sized & ~((width <= 2) | (height <= 2))
    small = judged & (boxes >= 0).all(axis=1) & (boxes <= ROUNDING).all(axis=1)
    # Whole numbers say less: 0, 0, 1, 1 is a box of one pixel, or all of the image.
    whole = small & (boxes == np.round(boxes)).all(axis=1)
    found = small & ~whole
    what = f"{where}: {found.sum()} of {len(table)} boxes look like fractions of the image"
    if _most(found, judged & ~whole):
        if found.sum() >= MIN_BOXES:
            raise DatasetError(f"{what}: write x, y, width, height in pixels.")
        return [f"{what}; x, y, width, height must be in pixels."]
    if _most(whole, judged):
        return [
            f"{where}: {whole.sum()} of {len(table)} boxes are the first pixel of their image; if "
            "they mean the whole image, write x, y, width, height in pixels."
        ]
    return [f"{what}; write all boxes in pixels."] if found.any() else []


def _corners(table: np.ndarray, beyond: np.ndarray, where: str) -> list[str]:
    """Refuse or warn of boxes that reach beyond their image, and would not if they were corners."""
    x, y, w, h, width, height = table.T
    known = (table[:, 2:4] > 0).all(axis=1) & np.isfinite(width)
    corners = (w > x) & (h > y) & (np.minimum(x, y) >= -MARGIN)
    corners &= (w <= width + MARGIN) & (h <= height + MARGIN)
    count, found = known.sum(), (beyond & corners).sum()
    what = (
        f"{where}: {found} of {count} boxes reach beyond their image, and look like corners x0, "
        "y0, x1, y1"
    )
    if _most(beyond & corners, known):
        if found >= MIN_BOXES:
            raise DatasetError(f"{what}: write x, y, width, height.")
        return [f"{what}; x, y, width, height are needed."]
    # Right boxes seldom reach beyond, and seldom all fit another reading of their numbers.
    centres = np.minimum(x - w / 2, y - h / 2) >= -MARGIN
    centres &= (x + w / 2 <= width + MARGIN) & (y + h / 2 <= height + MARGIN)
    for fits, reading in ((corners, "corners x0, y0, x1, y1"), (centres, "centres, with a size")):
        fit = (fits & known).sum() > 0.98 * count
        if count >= MIN_BOXES and fit and (beyond & known).sum() > 0.1 * count:
            return [
                f"{where}: {(beyond & known).sum()} of {count} boxes reach beyond their image, and "
                f"almost all would fit if they were {reading}; x, y, width, height are needed."
            ]
    return []


def _other_units(table: np.ndarray, sized: np.ndarray, where: str) -> list[str]:
    """Warn of boxes that all lie in the first 100 or 1000 pixels of larger images."""
    right, below, width, height = *(table[:, :2] + table[:, 2:4]).T, table[:, 4], table[:, 5]
    for unit, what in ((100, "percent of the image"), (1000, "thousandths of the image")):
        large = sized & (width >= 1.5 * unit) & (height >= 1.5 * unit)
        within = large & (right <= unit * ROUNDING) & (below <= unit * ROUNDING)
        if large.sum() < MIN_BOXES or within.sum() < 0.95 * large.sum():
            continue
        if np.fmax(right, below)[within].max() > 0.75 * unit:
            return [
                f"{where}: {within.sum()} of {len(table)} boxes lie in the first {unit} x {unit} "
                f"pixels of larger images; if they are {what}, write them in pixels."
            ]
    return []


def _most(found: np.ndarray, of: np.ndarray) -> bool:
    return bool(found.sum() > 0.5 * of.sum())


def _table(records: Sequence[dict], sizes: Mapping[str, tuple[int, int]]) -> np.ndarray:
    """(N, 6): x, y, width and height of every box, and width and height of its image."""
    rows, modes = [], []
    for record in records:
        size = record.get("width"), record.get("height")
        if None in size:
            size = sizes.get(record["file_name"]) or (float("nan"), float("nan"))
        for note in record.get("annotations", ()):
            if not note["iscrowd"]:
                rows.append((*note["bbox"], *size))
                modes.append(note["bbox_mode"])
    table = np.array(rows, dtype=np.float64).reshape(-1, 6)
    corners = np.array(modes, dtype=int).reshape(-1) == BoxMode.XYXY_ABS
    table[corners, 2:4] -= table[corners, :2]
    return table
