"""COCO's AP on a sample of the images, with an interval that says how sure it is.

The matching of detections with objects is that of pycocotools, image by image. It does not depend
on the other images, so the precision of a *resample* of the images (as many, drawn with
replacement) needs no new matching: every detection counts as often as its image was drawn. The
interval is the range of the middle 95 % of 200 resamples (the percentile bootstrap, Efron and
Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13).

Shape letters: I images, D detections of a class, T thresholds of the IoU.
"""

import contextlib
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools.cocoeval import COCOeval

from ..engine.evaluation.ground_truth import GroundTruth, indexed

RESAMPLES = 200


@dataclass(frozen=True)
class SampleAP:
    """AP in percent on a sample of images.

    Attributes:
        value: the mean over the classes that have objects in the sample; NaN where none has.
        classes: AP of each of these classes, by name.
        objects: how many objects of each class the sample has.
        images: how many images were drawn.
        resampled: the AP of each resample, in which the images are drawn equally for every
            detector that is judged on the same images.
    """

    value: float
    classes: Mapping[str, float]
    objects: Mapping[str, int]
    images: int
    resampled: np.ndarray

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval."""
        return _middle(self.resampled)

    def minus(self, other: "SampleAP") -> tuple[float, float]:
        """The 95 % interval of the difference to another detector on the same images."""
        return _middle(self.resampled - other.resampled)


def sample_ap(
    truth: GroundTruth,
    found: Sequence[dict[str, Any]],
    image_ids: Sequence[Any],
    *,
    max_dets: int = 100,
    classes: Sequence[str] | None = None,
) -> SampleAP:
    """The AP of detections on some images of a data set.

    Args:
        truth: of the whole data set.
        found: ``image_id`` and ``category_id`` (from 0) as the data set has them, ``bbox`` (x, y,
            width, height in pixels) and ``score``, as Detectron2's ``instances_to_coco_json``
            makes them.
        image_ids: the images, each once.
        max_dets: how many detections of a class are counted in an image.
        classes: the names of those that count; None: all of the data set.
    """
    judged = [k for k, name in enumerate(truth.classes) if classes is None or name in classes]
    metric = _matched(truth, found, image_ids, max_dets, judged)
    images = len(metric.params.imgIds)
    counts = np.ones((RESAMPLES + 1, images))
    rng = np.random.default_rng(0)
    for row in counts[1:]:
        row[:] = np.bincount(rng.integers(0, images, images), minlength=images)
    per_class = []
    for k, _ in enumerate(metric.params.catIds):
        found_in = metric.evalImgs[k * images : (k + 1) * images]
        per_class.append(_class_ap(found_in, counts, metric.params.recThrs))
    table = np.stack(per_class)  # (K, 1 + RESAMPLES), NaN where a class has no object
    with np.errstate(invalid="ignore"):
        present = ~np.isnan(table)
        mean = np.where(present, table, 0).sum(0) / present.sum(0)
    names = [truth.classes[k] for k in judged]
    numbers = {*metric.params.imgIds}
    objects = Counter(o["category_id"] - 1 for o in truth.objects if o["image_id"] in numbers)
    return SampleAP(
        100 * float(mean[0]),
        {names[k]: 100 * float(row[0]) for k, row in enumerate(table) if not np.isnan(row[0])},
        {truth.classes[k]: objects[k] for k in judged if objects[k]},
        images,
        100 * mean[1:],
    )


def _matched(
    truth: GroundTruth,
    found: Sequence[dict],
    image_ids: Sequence[Any],
    max_dets: int,
    classes: Sequence[int],
) -> COCOeval:
    """pycocotools' metric after the matching, for boxes of any area."""
    numbered = [dict(one) for one in truth.numbered(found) if min(one["bbox"][2:]) > 0]
    with contextlib.redirect_stdout(io.StringIO()):
        if numbered:
            detections = truth.coco.loadRes(numbered)
        else:
            detections = indexed({**truth.coco.dataset, "annotations": []})
        metric = COCOeval(truth.coco, detections, "bbox")
        metric.params.imgIds = sorted(truth.number(i) for i in image_ids)
        metric.params.areaRng, metric.params.areaRngLbl = metric.params.areaRng[:1], ["all"]
        metric.params.maxDets = [max_dets]
        metric.params.catIds = [k + 1 for k in classes]
        metric.evaluate()
    return metric


def _class_ap(found_in: Sequence[dict | None], counts: np.ndarray, recalls: np.ndarray):
    """AP of one class in each row of ``counts``, from 0 to 1; NaN where there are no objects.

    Args:
        found_in: what pycocotools matched in each image; None: neither objects nor detections.
        counts: (1 + RESAMPLES, I) how often each image was drawn.
        recalls: at which COCO reads the precision.
    """
    objects = np.array([0 if x is None else int((x["gtIgnore"] == 0).sum()) for x in found_in])
    seen = [(i, x) for i, x in enumerate(found_in) if x is not None and x["dtScores"]]
    total = counts @ objects
    if not seen:
        return np.where(total > 0, 0.0, np.nan)
    scores = np.concatenate([x["dtScores"] for _, x in seen])
    order = np.argsort(-scores, kind="mergesort")  # as pycocotools, so that ties are equal
    image = np.concatenate([np.full(len(x["dtScores"]), i) for i, x in seen])[order]
    matched = np.concatenate([x["dtMatches"] for _, x in seen], axis=1)[:, order] > 0  # (T, D)
    judged = ~np.concatenate([x["dtIgnore"] for _, x in seen], axis=1)[:, order].astype(bool)
    result = np.full(len(counts), np.nan)
    for r, row in enumerate(counts):
        if total[r]:
            weight = row[image]
            true = np.cumsum(weight * (matched & judged), axis=1)
            false = np.cumsum(weight * (~matched & judged), axis=1)
            result[r] = _mean_precision(true, false, total[r], recalls)
    return result


def _mean_precision(true: np.ndarray, false: np.ndarray, total: float, recalls: np.ndarray):
    """The mean over thresholds and recalls of the largest precision at that recall or beyond."""
    precision = true / np.maximum(true + false, np.spacing(1))
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    sums = 0.0
    for recall, best in zip(true / total, envelope, strict=True):
        at = np.searchsorted(recall, recalls, side="left")
        sums += best[at[at < len(best)]].sum()
    return sums / (len(true) * len(recalls))


def _middle(values: np.ndarray) -> tuple[float, float]:
    known = values[~np.isnan(values)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.percentile(known, (2.5, 97.5))
    return float(low), float(high)
