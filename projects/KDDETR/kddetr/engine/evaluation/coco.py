"""COCO's metric by the fastest exact implementation that is installed.

Detectron2's evaluator gives NaN when a model detects nothing, needs compiled operators, and
misreads some ids of images and annotations, see :mod:`.ground_truth`.
"""

import contextlib
import copy
import io
import json
import logging
import os
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from detectron2.data import MetadataCatalog
from detectron2.evaluation import COCOEvaluator
from detectron2.evaluation.coco_evaluation import COCOevalMaxDets
from pycocotools.cocoeval import COCOeval

from ...errors import ConfigError
from .arguments import (
    COCO_MAX_DETS,
    TASKS,
    checked_backend,
    checked_max_dets,
    checked_tasks,
    writable_folder,
)
from .ground_truth import LARGEST_AREA, GroundTruth, indexed

_log = logging.getLogger(__name__)

COCO_KEYPOINTS = 17  # the only number that COCO has a tolerance for
# The results for objects of one size, and their areas in square pixels.
SIZES = {"APs": (0, 32**2), "APm": (32**2, 96**2), "APl": (96**2, LARGEST_AREA)}


class CocoEvaluator(COCOEvaluator):
    """Detectron2's COCOEvaluator with a choice of the implementation, and AP 0 for no detections.

    Boxes without area inside their image are left out of the metric, as training leaves them out.

    Args:
        dataset_name: a registered data set, with ids of any kind. In a config it may be a list, of
            which the Trainer makes one evaluator for each name; the constructor takes one name.
        output_dir: folder for predictions and results, which have the ids of the data set; None:
            they are not written.
        tasks: "bbox", "segm" or "keypoints", or several of them; the last two need a detector with
            such a head, and annotations for it.
        max_dets_per_image: how many detections of a class are counted in an image, at least 10;
            None: 100, as COCO. Any other number is evaluated by pycocotools.
        backend: "auto", or "pycocotools" for the reference implementation.

    Attributes:
        truth: the images, classes and objects of the data set.

    Raises:
        ConfigError: an argument is out of range, the folder cannot be written, the annotations or
            the detections have no field for a task, or an image has more objects of a class than
            COCO's metric counts.
        DatasetError: the data set cannot be read.
    """

    def __init__(
        self,
        dataset_name: str | Sequence[str],
        output_dir: str | None = None,
        *,
        tasks: Sequence[str] = ("bbox",),
        max_dets_per_image: int | None = None,
        backend: str = "auto",
    ):
        # The constructor of COCOEvaluator is not called, because it reads the file itself.
        self._tasks = checked_tasks(tasks)
        self._backend = checked_backend(backend)
        self._max_dets = checked_max_dets(max_dets_per_image)
        self._output_dir = writable_folder(output_dir)
        if not isinstance(dataset_name, str) or not dataset_name:
            raise ConfigError(
                f"dataloader.evaluator.dataset_name must be the name of a data set, not"
                f" {dataset_name!r}."
            )
        self._logger = logging.getLogger(COCOEvaluator.__module__)
        self._metadata = MetadataCatalog.get(dataset_name)
        self._distributed, self._cpu_device = True, torch.device("cpu")
        self.truth = GroundTruth(dataset_name)
        for task in self._tasks:
            self._check_annotations(task)
        if max_dets_per_image is None and "bbox" in self._tasks:
            self._check_counts()

    def metric_names(self) -> list[str]:
        """The results that will have a value, such as ``bbox/AP``: those with objects to find."""
        names = []
        for task in self._tasks:
            objects = self.truth.objects
            if task == "keypoints":
                objects = [thing for thing in objects if thing["num_keypoints"]]
            if not objects:
                continue
            names += [f"{task}/{name}" for name in ("AP", "AP50", "AP75")]
            for size, (low, high) in SIZES.items():
                found = any(low <= thing["area"] <= high for thing in objects)
                if found and (task, size) != ("keypoints", "APs"):
                    names.append(f"{task}/{size}")
            if len(self.truth.classes) > 1:
                present = sorted({thing["category_id"] - 1 for thing in objects})
                names += [f"{task}/AP-{self.truth.classes[k]}" for k in present]
        return names

    def results_of(self, inputs: list[dict], outputs: list[dict]) -> dict[str, Any]:
        """The results on these images alone, by this process alone; nothing is written.

        Args:
            inputs: of a detector; only their ``image_id`` is read.
            outputs: what the detector returned for them.

        Returns:
            Nested results, as those of ``evaluate``.
        """
        alone = copy.copy(self)
        alone._output_dir, alone._distributed = None, False
        alone._logger = logging.getLogger(f"{COCOEvaluator.__module__}.of_some_images")
        alone._logger.setLevel(logging.WARNING)
        alone.reset()
        alone.process(inputs, outputs)
        with contextlib.redirect_stdout(io.StringIO()):
            return alone.evaluate(img_ids=[x["image_id"] for x in inputs]) or {}

    def _eval_predictions(self, predictions: list[dict], img_ids: list | None = None) -> None:
        """Save the detections of all images and fill ``self._results`` with the metrics."""
        found = [detection for image in predictions for detection in image["instances"]]
        self._check_detections(found)
        if img_ids is None:
            self._describe(found, predictions)
        if self._output_dir:
            path = os.path.join(self._output_dir, "coco_instances_results.json")
            with open(path, "w") as stream:
                json.dump(self.truth.with_original_ids(found), stream, default=_plain)
        if not self.truth.labeled:
            return
        numbered = self.truth.numbered(found)
        images = None if img_ids is None else [self.truth.number(i) for i in img_ids]
        for task in self._tasks:
            result = self._metric(numbered, task, images)
            self._results[task] = self._derive_coco_results(result, task, self.truth.classes)

    def _metric(self, found: list[dict], task: str, images: list[int] | None) -> Any:
        """COCOeval after the evaluation of numbered detections, on all images or on some."""
        truth = self.truth.coco
        if task == "segm":  # with a box, its area would count instead of the mask's
            found = [{k: v for k, v in one.items() if k != "bbox"} for one in found]
        else:
            # Copies, because loadRes adds keys. A box without area finds nothing, and no object is
            # looked for there either; Detectron2's models drop such boxes themselves.
            found = [dict(one) for one in found if min(one["bbox"][2:]) > 0]
        if found:
            detections = truth.loadRes(found)
        else:  # which loadRes cannot load
            detections = indexed({**truth.dataset, "annotations": []})
        name, fast = self._backend
        if self._max_dets != COCO_MAX_DETS:
            name, kind = "pycocotools", COCOevalMaxDets
        elif not found or task == "keypoints":  # faster-coco-eval reads no such COCO object
            name, kind = "pycocotools", COCOeval
        else:
            kind = fast or COCOeval
        _log.info("COCO metric (%s) by %s", task, name)
        metric = kind(truth, detections, task)
        if task != "keypoints":
            metric.params.maxDets = [1, 10, self._max_dets]
        if images is not None:
            metric.params.imgIds = images
        metric.evaluate()
        metric.accumulate()
        metric.summarize()
        return metric

    def _check_annotations(self, task: str) -> None:
        field, name = TASKS[task], self.truth.name
        notes = self.truth.coco.dataset.get("annotations", ())
        if field is None or not notes:
            return
        # Crowds have masks too, but no keypoints.
        needed = notes if task == "segm" else self.truth.objects
        if without := sum(field not in note for note in needed):
            raise ConfigError(_no_field(task, f"{without} of {len(needed)} annotations of {name}"))
        if task == "segm":
            images = self.truth.coco.imgs
            sizes = [[images[n["image_id"]].get(k) for k in ("height", "width")] for n in notes]
            coded = [n[field]["size"] if isinstance(n[field], dict) else None for n in notes]
            if any(None in s or list(c or s) != s for s, c in zip(sizes, coded, strict=True)):
                raise ConfigError(
                    f"dataloader.evaluator.tasks names segm, but images of {name} have no height"
                    " and width, or not those of their masks: correct them, or leave out segm."
                )
        elif any(len(note[field]) != 3 * COCO_KEYPOINTS for note in needed):
            raise ConfigError(
                "dataloader.evaluator.tasks names keypoints, which COCO's metric has for"
                f" {COCO_KEYPOINTS} points (x, y, visibility) an object, and {name} has another"
                " number: leave out keypoints."
            )

    def _check_detections(self, found: list[dict]) -> None:
        for task in self._tasks:
            field = TASKS[task]
            if field and not all(field in detection for detection in found):
                raise ConfigError(_no_field(task, "the detections"))

    def _check_counts(self) -> None:
        """Refuse images with more objects than are counted: even a perfect model would miss
        some.
        """
        counts = Counter((o["image_id"], o["category_id"]) for o in self.truth.objects)
        most = max(counts.values(), default=0)
        if most > COCO_MAX_DETS:
            raise ConfigError(
                f"An image of {self.truth.name} has {most} objects of one class, but COCO's metric"
                f" counts {COCO_MAX_DETS} detections of a class in an image: set"
                f" dataloader.evaluator.max_dets_per_image={most}, or ={COCO_MAX_DETS} to keep"
                " COCO's limit."
            )

    def _describe(self, found: list[dict], predictions: list[dict]) -> None:
        """Log counts of objects and detections, which explain an AP near 0."""
        if not self.truth.objects:
            _log.warning("The data set has no annotations, or only crowds, so there is no AP.")
            return
        unseen = self.truth.unseen(image["image_id"] for image in predictions)
        if unseen:
            _log.warning(
                "%d images of %s that have objects were not read by dataloader.test: their objects"
                " count as missed.",
                unseen,
                self.truth.name,
            )
        if not found:
            _log.warning(
                "The model made no detection on %d images, so AP is 0: it may be untrained, its"
                " scores may all be below the detector's threshold, or its weights were not"
                " loaded.",
                len(predictions),
            )
            return
        scores = [detection["score"] for detection in found]
        classes = Counter(detection["category_id"] for detection in found)
        _log.info(
            "%d detections on %d images, scores %.3f to %.3f, %d of %d classes, class %d most"
            " often (%d times)",
            len(found),
            len(predictions),
            min(scores),
            max(scores),
            len(classes),
            len(self.truth.classes),
            *classes.most_common(1)[0],
        )


def _no_field(task: str, whose: str) -> str:
    field = TASKS[task]
    return (
        f"dataloader.evaluator.tasks names {task}, but {whose} have no {field}: leave out {task},"
        f" or take a model and a data set that have {field}."
    )


def _plain(value: Any) -> Any:
    """An id in JSON: numbers of numpy as numbers, and what JSON does not have as text."""
    return value.item() if hasattr(value, "item") else str(value)
