"""COCO's metric by the fastest exact implementation that is installed.

Detectron2's evaluator gives NaN when a model detects nothing, needs compiled operators, and may
reuse an outdated ground-truth file of an earlier run. The evaluator here gives 0, works without
them, and converts the ground truth anew.
"""

import contextlib
import logging
import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import COCOEvaluator, coco_evaluation
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ..errors import ConfigError

_log = logging.getLogger(__name__)

# Tasks, and the field that detections and annotations need for them in addition to a box.
TASKS = {"bbox": None, "segm": "segmentation", "keypoints": "keypoints"}


@cache
def coco_backend() -> tuple[str, type | None]:
    """Name and class of the implementation of COCO's metric; the class is None for pycocotools.

    All implementations give the same numbers; faster-coco-eval is about ten times as fast as
    pycocotools.
    """
    try:
        from faster_coco_eval import COCOeval_faster

        return "faster-coco-eval", COCOeval_faster
    except ImportError:
        pass
    try:
        from detectron2 import _C
        from detectron2.evaluation.fast_eval_api import COCOeval_opt

        # An install without compiled operators may have a stand-in module that raises on use.
        _C.COCOevalEvaluateImages  # noqa: B018
        return "Detectron2's compiled COCOeval", COCOeval_opt
    except (ImportError, AttributeError):
        return "pycocotools", None


class CocoEvaluator(COCOEvaluator):
    """Detectron2's COCOEvaluator with a choice of the implementation, and AP 0 for no detections.

    Args:
        dataset_name: a registered data set.
        output_dir: folder for predictions and results; None: they are not written.
        tasks: "bbox", "segm" or "keypoints", or several of them; the last two need a detector with
            such a head, and annotations for it.
        max_dets_per_image: None: 100, as COCO; any other number is evaluated by pycocotools.
        backend: "auto", or "pycocotools" for the reference implementation.

    Raises:
        ValueError: an unknown backend.
        ConfigError: an unknown task, or one that the annotations or the detections have no field
            for.
    """

    def __init__(
        self,
        dataset_name: str,
        output_dir: str | None = None,
        *,
        tasks: Sequence[str] = ("bbox",),
        max_dets_per_image: int | None = None,
        backend: str = "auto",
    ):
        if backend not in ("auto", "pycocotools"):
            raise ValueError(f"backend must be auto or pycocotools, not {backend!r}.")
        if not tasks or set(tasks) - TASKS.keys():
            raise ConfigError(
                f"dataloader.evaluator.tasks must be some of {', '.join(TASKS)}, not {list(tasks)}."
            )
        self._backend = coco_backend() if backend == "auto" else ("pycocotools", None)
        metadata = MetadataCatalog.get(dataset_name)
        has_file = hasattr(metadata, "json_file")
        if has_file and not hasattr(metadata, "thing_dataset_id_to_contiguous_id"):
            DatasetCatalog.get(dataset_name)  # its category ids are known after it is read
        with tempfile.TemporaryDirectory() as folder, _implementation(self._backend[1]):
            super().__init__(
                dataset_name,
                tasks=tuple(tasks),
                output_dir=folder,  # here Detectron2 writes annotations without a file of their own
                max_dets_per_image=max_dets_per_image,
                use_fast_impl=self._backend[1] is not None,
            )
        if not has_file:
            del metadata.json_file  # it is converted anew, because the data may have changed
        self._output_dir = output_dir
        if output_dir:
            os.makedirs(output_dir, exist_ok=True)
        self._check_fields(self._truth(), f"the annotations of {dataset_name}")

    def _eval_predictions(self, predictions: list[dict], img_ids: list[int] | None = None) -> None:
        found = [detection for image in predictions for detection in image["instances"]]
        self._describe(found, len(predictions))
        self._check_fields(found, "the detections")
        counts = self._max_dets_per_image[-1]
        _log.info("COCO metric by %s", self._backend[0] if counts == 100 else "pycocotools")
        with _implementation(self._backend[1]):
            super()._eval_predictions(predictions, img_ids=img_ids)

    def _derive_coco_results(
        self, coco_eval: Any, iou_type: str, class_names: list[str] | None = None
    ) -> dict[str, float]:
        if coco_eval is None:
            # No detections: COCOeval can evaluate them, but COCO.loadRes cannot load them.
            nothing = COCO()
            nothing.dataset = {**self._coco_api.dataset, "annotations": []}
            nothing.createIndex()
            coco_eval = COCOeval(self._coco_api, nothing, iou_type)
            coco_eval.evaluate()
            coco_eval.accumulate()
            coco_eval.summarize()
        return super()._derive_coco_results(coco_eval, iou_type, class_names=class_names)

    def _truth(self) -> list[dict]:
        """The annotations without crowds."""
        return [a for a in self._coco_api.dataset.get("annotations", ()) if not a.get("iscrowd", 0)]

    def _check_fields(self, boxes: list[dict], whose: str) -> None:
        for task in self._tasks:
            field = TASKS[task]
            if field and boxes and not all(field in box for box in boxes):
                raise ConfigError(
                    f"dataloader.evaluator.tasks names {task}, but {whose} have no {field}: leave"
                    f" out {task}, or take a model and a data set that have {field}."
                )

    def _describe(self, found: list[dict], images: int) -> None:
        """Log counts of objects and detections, which explain an AP near 0."""
        if not self._truth():
            _log.warning("The data set has no annotations, or only crowds, so there is no AP.")
            return
        if not found:
            _log.warning(
                "The model made no detection on %d images, so AP is 0: it may be untrained, its"
                " scores may all be below the detector's threshold, or its weights were not"
                " loaded.",
                images,
            )
            return
        scores = [detection["score"] for detection in found]
        classes = Counter(detection["category_id"] for detection in found)
        _log.info(
            "%d detections on %d images, scores %.3f to %.3f, %d of %s classes, class %d most"
            " often (%d times)",
            len(found),
            images,
            min(scores),
            max(scores),
            len(classes),
            len(self._metadata.get("thing_classes") or ()) or "unknown",
            *classes.most_common(1)[0],
        )


@contextlib.contextmanager
def _implementation(kind: type | None) -> Iterator[None]:
    """Makes Detectron2 use another COCOeval, which it looks up in its module; None: its own."""
    original = coco_evaluation.COCOeval_opt
    coco_evaluation.COCOeval_opt = kind or original
    try:
        yield
    finally:
        coco_evaluation.COCOeval_opt = original
