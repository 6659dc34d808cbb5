"""Where the pixels of an image file lie in the augmented image, as one affine map.

Flips, resizes, crops, paddings and rotations are affine, and so is any sequence of them. What was
found in the file before training, such as the boxes of a recorded teacher, follows the image
through them. Six numbers are kept in place of Detectron2's transforms, because these may hold
pixels or functions that cannot be sent from a loading process.
"""

import numpy as np
from detectron2.data import transforms as T

AFFINE = "affine"  # the key of a mapped dict
_EXACT = 1e-4  # of the image's longer side; a map that misses a point by more is not affine


def affine_of(transforms: T.Transform, width: int, height: int) -> np.ndarray | None:
    """The map of a file's pixels to those of the augmented image.

    Args:
        transforms: what was applied to the image.
        width, height: of the file in pixels.

    Returns:
        (2, 3) float64: (x, y, 1) of the file to (x, y) of the image; None where there is no such
        map, or where a transform does not say how it moves points.
    """
    corners = np.array([[0, 0], [1, 0], [0, 1], [1, 1], [0.5, 0.5]]) * [width, height]
    try:
        # A copy, because some transforms change their argument.
        moved = np.asarray(transforms.apply_coords(corners.copy()), dtype=np.float64)
    except Exception:  # most raise NotImplementedError, and those of users whatever they like
        return None
    origin, right, down = moved[:3]
    affine = np.stack([(right - origin) / width, (down - origin) / height, origin], axis=1)
    missed = np.abs(move_points(affine, corners) - moved).max()
    return affine if missed <= _EXACT * max(width, height) else None


def move_points(affine: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(..., 2) pixels of a file to pixels of the augmented image."""
    return points @ affine[:, :2].T + affine[:, 2]


def move_boxes(affine: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """(N, 4) XYXY boxes in pixels of a file to those of the augmented image.

    A box that was rotated becomes the smallest upright box around it, as in Detectron2.
    """
    corners = boxes[:, [0, 1, 2, 1, 0, 3, 2, 3]].reshape(-1, 4, 2)
    moved = move_points(affine, corners)
    return np.concatenate([moved.min(axis=1), moved.max(axis=1)], axis=1)
