"""Whether boxes can be what a COCO file says they are: corners and fractions look like boxes too.

Shape letters: N boxes, crowds not counted.
"""

import logging
from collections.abc import Sequence

import numpy as np

from ..errors import DatasetError

_log = logging.getLogger(__name__)

LEAST = 10  # boxes: of fewer, all of them may be odd by chance
MARGIN = 1.0  # pixels: annotation programs round


def check_boxes(records: Sequence[dict], json_file: str) -> int:
    """Say what is odd about the boxes of a data set.

    Args:
        records: dataset dicts with boxes in XYWH pixels; where ``width`` and ``height`` are
            missing, nothing is known about boxes that leave the image.
        json_file: for the message.

    Returns:
        how many boxes have an area inside their image, crowds not counted.

    Raises:
        DatasetError: they are corners or fractions of the image.
    """
    table = _table(records)
    x, y, w, h, width, height = table.T
    count = len(table)
    with np.errstate(over="ignore"):  # a number near the largest is outside of every image
        right, below = x + w, y + h
    beyond = (x < -MARGIN) | (y < -MARGIN) | (right > width + MARGIN) | (below > height + MARGIN)
    corners = (w > x) & (h > y) & (w <= width + MARGIN) & (h <= height + MARGIN)
    if count >= LEAST and beyond.mean() > 0.5 and corners.mean() > 0.99:
        raise DatasetError(
            f"{json_file}: {beyond.sum()} of {count} boxes reach beyond their image, and all look "
            "like corners x0, y0, x1, y1: write x, y, width, height."
        )
    if count >= LEAST and table[:, :4].max() <= 1:
        raise DatasetError(
            f"{json_file}: all {count} boxes look like fractions of the image: write x, y, width, "
            "height in pixels."
        )
    # fmin and fmax pass over sizes that are not known, which are NaN here.
    seen = (np.fmin(right, width) > np.fmax(x, 0)) & (np.fmin(below, height) > np.fmax(y, 0))
    if not seen.all():
        _log.warning(
            "%s: %d of %d boxes have no area in their image; training leaves them out, and in "
            "evaluation nothing can find them.",
            json_file,
            (~seen).sum(),
            count,
        )
    if (seen & beyond).any():
        _log.warning(
            "%s: %d of %d boxes reach beyond their image; training cuts them off at its edge.",
            json_file,
            (seen & beyond).sum(),
            count,
        )
    return int(seen.sum())


def _table(records: Sequence[dict]) -> np.ndarray:
    """(N, 6) x, y, width, height of every box, and width, height of its image."""
    unknown = float("nan")
    rows = [
        (*note["bbox"], record.get("width", unknown), record.get("height", unknown))
        for record in records
        for note in record.get("annotations", ())
        if not note["iscrowd"]
    ]
    return np.array(rows, dtype=np.float64).reshape(-1, 6)
