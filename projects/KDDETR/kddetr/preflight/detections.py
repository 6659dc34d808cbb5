"""The detections of a teacher, through its wrappers, as the student learns from it."""

import contextlib
from collections.abc import Callable, Iterable
from typing import Any

import torch
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Instances
from detectron2.utils import comm
from torch import nn

from ..detectors.detr.postprocess import select_detections
from ..predictions import LAST
from ..structures import EncodedDetector, QueryableDetector
from ..teachers import HalfPrecision, Vocabulary

Detect = Callable[[list[dict[str, Any]]], list[dict[str, Instances]]]
MOST = 100  # detections of an image, as COCO counts


def teacher_detections(teacher: QueryableDetector) -> Detect:
    """A function that detects the classes of the student with a teacher, in any of its wrappers.

    A model of Detectron2 selects its own detections, because that needs its non-maximum
    suppression, and those of other classes are dropped. Any other teacher is asked its own queries,
    as in a distillation, and the best pairs of query and class are its detections.
    """
    chain: list[Any] = [teacher]
    while hasattr(chain[-1], "detector"):
        chain.append(chain[-1].detector)
    inner = chain[-1]
    if hasattr(inner, "stock"):
        return lambda inputs: _of_stock(inner, chain, inputs)
    count = getattr(inner, "num_detections", MOST)
    return lambda inputs: _at_own_queries(teacher, inputs, count)


@torch.no_grad()
def detections_of(detect: Detect, loader: Iterable[list[dict]]) -> list[dict[str, Any]]:
    """The detections in the images of a loader, in COCO's form with classes from 0, gathered from
    all processes.
    """
    found = []
    for batch in loader:
        for x, output in zip(batch, detect(batch), strict=True):
            instances = output["instances"].to("cpu")
            found += instances_to_coco_json(instances, x["image_id"])
    return [one for part in comm.all_gather(found) for one in part]


def _at_own_queries(
    teacher: QueryableDetector, inputs: list[dict[str, Any]], count: int
) -> list[dict[str, Instances]]:
    asked = EncodedDetector(teacher, teacher.encode(inputs))
    answers = asked.decode(asked.queries(), layers=LAST).last()
    logits = answers.logits[-1].float()
    if answers.answered is not None:  # a recorded teacher repeats answers, which do not count
        logits = logits.masked_fill(~answers.answered[-1][..., None].bool(), -torch.inf)
    sizes = [tuple(x["image"].shape[-2:]) for x in inputs]
    found = select_detections(logits, answers.boxes[-1], sizes, count=count)
    if answers.classes is not None:  # the columns are for some of the student's classes
        for one in found:
            one.pred_classes = answers.classes[one.pred_classes]
    found = [one[one.scores > 0] for one in found]
    return [{"instances": _in_file(x, one)} for x, one in zip(inputs, found, strict=True)]


def _in_file(x: dict[str, Any], found: Instances) -> Instances:
    """Detections in pixels of the image's file."""
    height, width = found.image_size
    return detector_postprocess(found, x.get("height", height), x.get("width", width))


def _of_stock(
    inner: nn.Module, chain: list[Any], inputs: list[dict[str, Any]]
) -> list[dict[str, Instances]]:
    device = next(inner.parameters()).device
    half = next((wrapper.dtype for wrapper in chain if isinstance(wrapper, HalfPrecision)), None)
    rounding = torch.autocast(device.type, half) if half else contextlib.nullcontext()
    with rounding:
        found = [output["instances"] for output in inner(inputs)]
    for vocabulary in reversed([w for w in chain if isinstance(w, Vocabulary)]):
        found = [_selected(one, vocabulary) for one in found]
    return [{"instances": one} for one in found]


def _selected(found: Instances, vocabulary: Vocabulary) -> Instances:
    """The detections of the wanted classes, under their numbers there."""
    rows = vocabulary.rows.to(found.pred_classes.device)
    number = torch.full((len(vocabulary.classes),), -1, device=rows.device)
    places = vocabulary.places
    number[rows] = torch.arange(len(rows), device=rows.device) if places is None else places
    classes = number[found.pred_classes]
    kept = found[classes >= 0]
    kept.pred_classes = classes[classes >= 0]
    return kept
