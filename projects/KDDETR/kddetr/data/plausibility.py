"""A check that boxes are x, y, width, height in pixels, and not corners or fractions.

Corners ``x0, y0, x1, y1`` and fractions of the image are four valid numbers too, so only all boxes
of a data set together show the mistake.

Shape letters: N boxes, crowds not counted.
"""

import logging
from collections.abc import Sequence

import numpy as np

from ..errors import DatasetError

_log = logging.getLogger(__name__)

MIN_BOXES = 10  # fewer boxes may all be unusual by chance
MARGIN = 1.0  # pixels, because annotation programs round


def check_boxes(records: Sequence[dict], json_file: str) -> int:
    """Check the boxes of dataset dicts (XYWH pixels), and warn of boxes outside of their images.

    Without ``width`` and ``height`` of an image, its boxes are not compared with its size.

    Returns:
        The number of boxes that have an area inside their image, crowds not counted.

    Raises:
        DatasetError: the boxes are corners or fractions of the image.
    """
    table = _table(records)
    x, y, w, h, width, height = table.T
    count = len(table)
    with np.errstate(over="ignore"):  # the sum of two huge numbers, infinity, is outside as well
        right, below = x + w, y + h
    beyond = (x < -MARGIN) | (y < -MARGIN) | (right > width + MARGIN) | (below > height + MARGIN)
    corners = (w > x) & (h > y) & (w <= width + MARGIN) & (h <= height + MARGIN)
    if count >= MIN_BOXES and beyond.mean() > 0.5 and corners.mean() > 0.99:
        raise DatasetError(
            f"{json_file}: {beyond.sum()} of {count} boxes reach beyond their image, and all look "
            "like corners x0, y0, x1, y1: write x, y, width, height."
        )
    if count >= MIN_BOXES and table[:, :4].max() <= 1:
        raise DatasetError(
            f"{json_file}: all {count} boxes look like fractions of the image: write x, y, width, "
            "height in pixels."
        )
    # An unknown image size is NaN, which fmin and fmax ignore.
    inside = (np.fmin(right, width) > np.fmax(x, 0)) & (np.fmin(below, height) > np.fmax(y, 0))
    if not inside.all():
        _log.warning(
            "%s: %d of %d boxes have no area in their image; training leaves them out, and no "
            "detection can match them in evaluation.",
            json_file,
            (~inside).sum(),
            count,
        )
    if (inside & beyond).any():
        _log.warning(
            "%s: %d of %d boxes reach beyond their image; training clips them at its edge.",
            json_file,
            (inside & beyond).sum(),
            count,
        )
    return int(inside.sum())


def _table(records: Sequence[dict]) -> np.ndarray:
    """(N, 6): x, y, width and height of every box, and width and height of its image."""
    unknown = float("nan")
    rows = [
        (*note["bbox"], record.get("width", unknown), record.get("height", unknown))
        for record in records
        for note in record.get("annotations", ())
        if not note["iscrowd"]
    ]
    return np.array(rows, dtype=np.float64).reshape(-1, 6)
