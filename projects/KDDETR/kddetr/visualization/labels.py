"""Where the labels of boxes go: beside their box, in the picture, and never on one another."""

from collections.abc import Sequence

import numpy as np


def place_labels(
    boxes: np.ndarray, sizes: np.ndarray, *, frame: tuple[float, float]
) -> list[tuple[float, float] | None]:
    """A place for each label, the first ones served first.

    Of the places around and inside its box where it touches no label placed before, a label takes
    the one that hides least of any box, and of equally good ones the one that comes first, above
    the left corner.

    Args:
        boxes: (N, 4) ``xyxy``, the most important first.
        sizes: (N, 2) width and height of each label, same unit.
        frame: width and height of the picture.

    Returns:
        the upper left corner of each label; None where it fits nowhere.
    """
    frame_size = np.array(frame)
    taken = np.zeros((0, 4))
    places: list[tuple[float, float] | None] = []
    for box, size in zip(boxes, sizes):
        corners = np.clip(_candidates(box, size), 0, np.maximum(frame_size - size, 0))
        rectangles = np.concatenate([corners, corners + size], axis=1)
        free = _overlap(rectangles, taken).sum(1) == 0
        if not free.any():
            places.append(None)
            continue
        hidden = _overlap(rectangles, boxes).sum(1)
        # A hair's breadth in favour of the earlier place, or rounding decides between equals.
        hidden = hidden + np.arange(len(hidden)) * 1e-3 * size.prod()
        best = int(np.where(free, hidden, np.inf).argmin())
        places.append((float(corners[best, 0]), float(corners[best, 1])))
        taken = np.concatenate([taken, rectangles[best : best + 1]])
    return places


def _candidates(box: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Upper left corners of a label around the box, then in its corners, (P, 2)."""
    x0, y0, x1, y1 = box
    width, height = size
    left, middle, right = x0, (x0 + x1 - width) / 2, x1 - width
    above, below = y0 - height, y1
    beside: Sequence[tuple[float, float]] = [
        (x, y) for x in (x0 - width, x1) for y in (y0, (y0 + y1 - height) / 2, y1 - height)
    ]
    corners = [(x, y) for y in (y0, y1 - height) for x in (left, right)]
    outside = [(x, y) for y in (above, below) for x in (left, right, middle)]
    beyond = [(x, y) for y in (above, below) for x in (x0 - width, x1)]
    return np.array([*outside, *beside, *beyond, *corners])


def _overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Areas shared by each of (P, 4) with each of (Q, 4) ``xyxy``, (P, Q)."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    return (high - low).clip(min=0).prod(-1)
