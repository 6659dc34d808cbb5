"""Answers of any detector in the world, from a file of its detections in COCO's results format.

Such a file has one score for a box, and not the distribution over all classes that a teacher of
this project gives. What is assumed in its place:

- A detection of class c with score s says that c has the probability s; its logit is log(s / (1 -
  s)), with s kept in [0.0001, 0.9999].
- Every class without a detection at that box has the probability 0.01, from which detectors with
  sigmoids start their training, or s / 2 where that is less.
- Detections of one image with exactly the same box are one answer of several classes.
- A detection has no query. Its own box stands for it.
"""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.structures import BoxMode

from ..boxes import xyxy_to_cxcywh
from ..data.images import SEEN, header_size, spread
from ..data.plausibility import check_boxes
from ..errors import DatasetError, one_line
from .answers import Answers, answers_of

UNSEEN = 0.01  # the probability of a class without a detection, at most
_LEAST = 1e-4  # of a score and of 1 - score


def read_results(file: str, known: Mapping[Any, int]) -> dict[Any, list[dict]]:
    """The detections of each image, by its id.

    Args:
        file: in COCO's results format, a list of ``image_id``, ``category_id``, ``bbox`` (XYWH in
            pixels) and ``score``.
        known: category id to class.

    Raises:
        DatasetError: the file is missing or something else, or a detection is invalid or of an
            unknown category.
    """
    try:
        detections = json.loads(Path(file).expanduser().read_bytes())
    except FileNotFoundError as error:
        raise DatasetError(f"The results {file} do not exist: check the path.") from error
    except (ValueError, RecursionError) as error:
        raise DatasetError(
            f"{file} is truncated or not JSON ({error}): export it again."
        ) from error
    if not isinstance(detections, list) or not all(isinstance(d, dict) for d in detections):
        raise DatasetError(
            f"{file} is no list of detections: export it in COCO's results format, a list of"
            " image_id, category_id, bbox and score."
        )
    if not detections:
        raise DatasetError(f"{file} has no detection, so it teaches nothing: export it again.")
    by_image = defaultdict(list)
    for number, detection in enumerate(detections):
        if fault := _fault(detection, known):
            raise DatasetError(f"{file}, detection {number}: {fault}.")
        by_image[detection["image_id"]].append(detection)
    return dict(by_image)


def _fault(detection: dict, known: Mapping[Any, int]) -> str:
    """What is wrong with a detection; empty where nothing is."""
    if missing := {"image_id", "category_id", "bbox", "score"} - detection.keys():
        return f"it has no {sorted(missing)[0]}"
    box = detection["bbox"]
    values = [*box, detection["score"]] if isinstance(box, list) else []
    if not all(type(value) in (int, float) for value in values):  # text, or true
        values = []
    try:
        numbers = np.array(values, dtype=np.float64)
    except OverflowError:  # a whole number of hundreds of digits
        numbers = np.array([])
    if numbers.shape != (5,) or not np.isfinite(numbers).all() or (numbers[2:4] < 0).any():
        return "bbox must be four numbers (x, y, width, height), and score a number"
    if not 0 <= numbers[4] <= 1:
        return f"its score {numbers[4]:g} is not a probability from 0 to 1"
    for key in ("image_id", "category_id"):
        if type(detection[key]) not in (int, float, str):
            return f"its {key} {one_line(detection[key], 60)} is neither a number nor text"
    if detection["category_id"] not in known:
        category, ids = detection["category_id"], ", ".join(map(repr, list(known)[:5]))
        more = ", ..." if len(known) > 5 else ""
        return f"its category {category!r} is not one of the categories {ids}{more}"
    return ""


def check_places(
    detections: Mapping[Any, Sequence[dict]], images: Sequence[dict], where: str
) -> list[str]:
    """Check that the boxes of some images, evenly spread, are in pixels, and no corners.

    Args:
        detections: of each image, from :func:`read_results`.
        images: the dataset dicts.
        where: the file, for messages.

    Returns:
        Sentences to warn with.

    Raises:
        DatasetError: most boxes are corners, fractions of the image, or outside of their image.
    """
    seen = spread([x for x in images if x["image_id"] in detections], SEEN)
    kind = {"bbox_mode": BoxMode.XYWH_ABS, "iscrowd": 0}
    records = [
        {
            "file_name": x["file_name"],
            "annotations": [{"bbox": d["bbox"]} | kind for d in detections[x["image_id"]]],
        }
        for x in seen
    ]
    sizes = {x["file_name"]: header_size(x["file_name"]) for x in seen}
    return check_boxes(records, where, {file: size for file, size in sizes.items() if size})[1]


def answers_from_detections(
    detections: Sequence[dict],
    known: Mapping[Any, int],
    size: tuple[int, int],
    *,
    keep: int,
    top_classes: int,
) -> Answers:
    """The answers that the detections of one image stand for, see the top of this file.

    Args:
        detections: checked by :func:`read_results`.
        known: category id to class.
        size: (height, width) of the image in pixels.
        keep, top_classes: see :func:`~kddetr.teachers.answers.best_answers`.
    """
    found = np.array([d["bbox"] for d in detections], dtype=np.float64).reshape(-1, 4)
    scores = np.array([d["score"] for d in detections]).clip(_LEAST, 1 - _LEAST)
    classes = np.array([known[d["category_id"]] for d in detections], dtype=np.int64)
    boxes, which = np.unique(found, axis=0, return_inverse=True)
    which = which.reshape(-1)  # numpy 2.0 gives it another shape
    best = np.zeros((len(boxes), len(set(known.values()))))
    np.maximum.at(best, (which, classes), scores)
    detected = np.zeros(best.shape, dtype=bool)
    detected[which, classes] = True
    unseen = np.minimum(UNSEEN, best.max(axis=1, keepdims=True, initial=0) / 2)
    probabilities = np.where(detected, best, unseen)
    order = np.argsort(-best.max(axis=1, initial=0), kind="stable")[:keep]
    xyxy = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)[order]
    height, width = size
    places = xyxy_to_cxcywh(torch.from_numpy(xyxy / [width, height, width, height])).float()
    logits = torch.from_numpy(probabilities[order]).logit().float()
    rows = torch.zeros(len(order), dtype=torch.int64)
    return answers_of(logits, places, places, rows, top_classes=top_classes)
