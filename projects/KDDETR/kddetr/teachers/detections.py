"""The detections of a teacher, through its wrappers, among the classes that a student learns."""

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

import torch
from detectron2.structures import Instances
from torch import nn

from ..detectors.detr.postprocess import detector_outputs, select_detections
from ..detectors.stock.base import StockDetector
from ..predictions import LAST
from ..structures import EncodedDetector, QueryableDetector
from .cached_encoder import CachedEncoder
from .half_precision import HalfPrecision
from .vocabulary import Vocabulary
from .wrapper import TeacherWrapper

MOST = 100  # detections of an image, as COCO counts, where a detector names no number


class TeacherDetector(nn.Module):
    """A teacher as a detector of its student's classes, numbered as the student numbers them.

    It is asked its own queries, as in a distillation, and the best pairs of query and class are its
    detections: of the classes that the student has, because those of others are no answers to it. A
    model of Detectron2 selects its detections itself, because that needs its non-maximum
    suppression, and those of other classes are dropped. A :class:`~kddetr.teachers.CachedEncoder`
    is passed by, so that nothing is kept and the time is that of the detector.

    Args:
        teacher: of a distillation, in any of its wrappers.

    Attributes:
        num_classes: K of the student.
        num_known: how many of these the teacher can detect.
    """

    def __init__(self, teacher: QueryableDetector) -> None:
        super().__init__()
        self.teacher = _uncached(teacher)
        self.num_classes = self.num_known = teacher.num_classes
        for one in _layers(teacher):
            if isinstance(one, Vocabulary):
                self.num_known = min(self.num_known, len(one.rows))

    def forward(self, inputs: list[dict[str, Any]]) -> list[dict[str, Instances]]:
        """``instances`` of each image, as every detector gives them."""
        *wrappers, inner = _layers(self.teacher)
        if isinstance(inner, StockDetector):
            return _of_stock(inner, wrappers, inputs)
        asked = EncodedDetector(self.teacher, self.teacher.encode(inputs))
        answers = asked.decode(asked.queries(), layers=LAST).last()
        logits = answers.logits[-1].float()
        if answers.answered is not None:  # a recorded teacher repeats answers, which do not count
            logits = logits.masked_fill(~answers.answered[-1][..., None].bool(), -torch.inf)
        sizes = [tuple(x["image"].shape[-2:]) for x in inputs]
        count = getattr(inner, "num_detections", MOST)
        found = select_detections(logits, answers.boxes[-1], sizes, count=count)
        if answers.classes is not None:  # the columns are for some of the student's classes
            for one in found:
                one.pred_classes = answers.classes[one.pred_classes]
        return detector_outputs([one[one.scores > 0] for one in found], inputs)


def _layers(teacher: Any) -> Iterator[Any]:
    """The wrappers of a teacher from the outside in, and the detector inside."""
    yield teacher
    while hasattr(teacher, "detector"):
        teacher = teacher.detector
        yield teacher


def _uncached(teacher: Any) -> Any:
    """The same teacher without what keeps answers; wrappers around that are copied."""
    if isinstance(teacher, CachedEncoder):
        return _uncached(teacher.detector)
    if not isinstance(teacher, TeacherWrapper):
        return teacher
    inside, outside = _uncached(teacher.detector), copy.copy(teacher)
    outside._modules = {**teacher._modules, "detector": inside}
    return outside


def _of_stock(
    inner: StockDetector, wrappers: list[Any], inputs: list[dict[str, Any]]
) -> list[dict[str, Instances]]:
    device = next(inner.parameters()).device
    half = next((one.dtype for one in wrappers if isinstance(one, HalfPrecision)), None)
    rounding = torch.autocast(device.type, half) if half else contextlib.nullcontext()
    with rounding:
        outputs = inner(inputs)
    for vocabulary in reversed([one for one in wrappers if isinstance(one, Vocabulary)]):
        outputs = [{"instances": _selected(one["instances"], vocabulary)} for one in outputs]
    return outputs


def _selected(found: Instances, vocabulary: Vocabulary) -> Instances:
    """The detections of the wanted classes, under their numbers there."""
    rows, places = vocabulary.rows, vocabulary.places
    number = torch.full((len(vocabulary.classes),), -1, device=rows.device)
    number[rows] = torch.arange(len(rows), device=rows.device) if places is None else places
    classes = number.to(found.pred_classes.device)[found.pred_classes]
    kept = found[classes >= 0]
    kept.pred_classes = classes[classes >= 0]
    return kept
