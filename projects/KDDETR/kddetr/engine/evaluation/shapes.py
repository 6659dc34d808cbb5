"""Masks and keypoints of annotations in the forms that COCO's metric reads.

A file may hold anything under ``segmentation`` and ``keypoints``. What is none counts as missing:
an evaluation of boxes does not need it, and one of masks or keypoints says that it is missing.
"""

from typing import Any

import numpy as np
from detectron2.structures.masks import polygon_area
from pycocotools import mask as mask_util

from ...data.entries import LARGEST

Outline = list[list[float]] | dict[str, Any]


def sound_outline(value: Any) -> Outline | None:
    """The polygons of a ``segmentation`` that have three points or more, or its run lengths; None
    where it has neither.
    """
    if isinstance(value, dict):
        return value if _area_of_runs(value) is not None else None
    if not isinstance(value, list | tuple):
        return None
    polygons = [p.tolist() if hasattr(p, "tolist") else p for p in value]
    return [p for p in polygons if _is_polygon(p)] or None


def sound_keypoints(value: Any) -> list[float] | None:
    """A flat list x, y, visibility, x, ...; None where ``keypoints`` are no such list."""
    try:
        points = np.asarray(value)
    except ValueError:  # rows of different lengths
        return None
    if points.dtype.kind not in "iuf" or not points.size or points.size % 3:
        return None
    return points.ravel().tolist() if np.isfinite(points).all() else None


def outline_area(outline: Outline) -> float:
    """The number of square pixels that :func:`sound_outline` encloses."""
    if isinstance(outline, dict):
        return _area_of_runs(outline) or 0.0
    polygons = (np.reshape(points, (-1, 2)).astype(float).T for points in outline)
    return float(sum(polygon_area(x, y) for x, y in polygons))


def _is_polygon(points: Any) -> bool:
    return (
        isinstance(points, list | tuple)
        and len(points) >= 6
        and len(points) % 2 == 0
        and all(type(v) in (int, float) and -LARGEST < v < LARGEST for v in points)
    )


def _area_of_runs(runs: dict) -> float | None:
    """The area of run lengths, which may be compressed; None where they are none."""
    try:
        height, width = runs["size"]
        counts = runs["counts"]
        if isinstance(counts, list):
            if sum(counts) != height * width or min(counts) < 0:
                return None
            runs = mask_util.frPyObjects(runs, height, width)
        return float(mask_util.area(runs))
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
