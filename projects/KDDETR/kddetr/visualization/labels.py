"""Placement of the labels of boxes: next to their box, inside the picture, without overlap."""

import itertools

import numpy as np


def place_labels(
    boxes: np.ndarray, sizes: np.ndarray, *, frame: tuple[float, float]
) -> list[tuple[float, float] | None]:
    """The upper left corner of each label, in the order given; None where it fits nowhere.

    A label is tried at 25 places around and inside its box. Of those where it overlaps no earlier
    label, it takes the place where it covers the smallest area of boxes; above the left corner is
    preferred among equals.

    Args:
        boxes: (N, 4) ``xyxy``, the most important first.
        sizes: (N, 2) width and height of each label, same unit.
        frame: width and height of the picture, same unit.
    """
    taken = np.zeros((0, 4))
    places: list[tuple[float, float] | None] = []
    for (x0, y0, x1, y1), size in zip(boxes, sizes):
        width, height = size
        xs = (x0, x1 - width, (x0 + x1 - width) / 2, x0 - width, x1)
        ys = (y0 - height, y1, y0, (y0 + y1 - height) / 2, y1 - height)
        corners = np.array([(x, y) for y, x in itertools.product(ys, xs)])
        room = np.subtract(frame, size)
        lowest = np.minimum(room / 2, 0)  # a label larger than the picture is centred
        corners = corners.clip(lowest, np.maximum(room, lowest))
        labels = np.concatenate([corners, np.add(corners, size)], axis=1)
        # The small amount added prefers the earlier of two places that cover equally much.
        covered = _shared_area(labels, boxes) + 1e-3 * width * height * np.arange(len(labels))
        covered[_shared_area(labels, taken) > 0] = np.inf
        best = int(covered.argmin())
        if np.isfinite(covered[best]):
            places.append((float(corners[best, 0]), float(corners[best, 1])))
            taken = np.concatenate([taken, labels[best : best + 1]])
        else:
            places.append(None)
    return places


def _shared_area(labels: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The area that each of (P, 4) ``xyxy`` shares with all of (Q, 4) together, (P,).

    Detectron2's ``pairwise_intersection`` rounds to float32, so that labels that touch would seem
    to overlap.
    """
    low = np.maximum(labels[:, None, :2], others[:, :2])
    high = np.minimum(labels[:, None, 2:], others[:, 2:])
    return (high - low).clip(min=0).prod(-1).sum(1)
