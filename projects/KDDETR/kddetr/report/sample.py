"""Detectors on a sample of the test images: what they find, their AP there and how long they take.

All detectors see the same images, one at a time and one after another, so that what slows the
machine for a while slows all of them.
"""

import copy
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.evaluation.evaluator import inference_context
from detectron2.structures import Boxes, Instances
from omegaconf import DictConfig
from torch import nn

from ..engine import CocoEvaluator, Trainer, build
from ..errors import UsageError
from ..visualization import Matching, match_detections
from .models import parameters

WARM_UP = 2  # the first images, whose time is not counted
SCORE = 0.3  # the least score of a detection that is counted as missed or wrong, and drawn


class Deadline:
    """A moment that is a number of seconds from now; None: never."""

    def __init__(self, seconds: float | None) -> None:
        self._end = None if seconds is None else time.monotonic() + seconds

    @property
    def is_over(self) -> bool:
        """Whether the moment has passed."""
        return self._end is not None and time.monotonic() > self._end


@dataclass(frozen=True)
class Asked:
    """One detector on the images of a sample.

    Attributes:
        parameters: their number, frozen ones included.
        seconds: of each image alone, in order, without those of warming up.
        results: those of COCO's metric on these images, such as ``AP`` and ``AP-cat``.
        found: the detections of each image.
    """

    parameters: int
    seconds: tuple[float, ...]
    results: Mapping[str, float]
    found: tuple[Instances, ...]

    @property
    def milliseconds(self) -> tuple[float, float, float]:
        """The median time of an image, and the times that a tenth of the images are below and
        above.
        """
        times = 1000 * np.array(self.seconds)
        return float(np.median(times)), *(float(x) for x in np.quantile(times, (0.1, 0.9)))


@dataclass(frozen=True)
class Sample:
    """Some of the test images, and what each detector finds there.

    Attributes:
        records: dataset dicts of the images that were seen.
        total: how many test images there are.
        truth: the objects of each image, with ``gt_boxes`` and ``gt_classes``.
        objects: the number of objects of each class in all test images, by name.
        asked: the detectors by name.
        device: where they ran, in words.
        clock: what the seconds are, "processor time" or "wall-clock time".
    """

    records: Sequence[dict]
    total: int
    truth: Sequence[Instances]
    objects: Mapping[str, int]
    asked: Mapping[str, Asked]
    device: str
    clock: str

    @property
    def is_whole(self) -> bool:
        """Whether these are all test images."""
        return len(self.records) == self.total

    def matchings(self, name: str) -> list[Matching]:
        """Which detections of a detector are right and which objects it missed, by image; of
        detections with a score of :data:`SCORE` or more.
        """
        found = []
        for output, truth in zip(self.asked[name].found, self.truth, strict=True):
            sure = output[output.scores >= SCORE]
            found.append(
                match_detections(
                    boxes=sure.pred_boxes.tensor,
                    scores=sure.scores,
                    classes=sure.pred_classes,
                    gt_boxes=truth.gt_boxes.tensor,
                    gt_classes=truth.gt_classes,
                )
            )
        return found

    def errors(self, name: str) -> list[int]:
        """How many objects a detector missed and how many of its detections are wrong, by image."""
        return [int(m.missed.sum() + (~m.correct).sum()) for m in self.matchings(name)]


def ask(
    detectors: Mapping[str, nn.Module], cfg: DictConfig, *, images: int, deadline: Deadline
) -> Sample:
    """Detect on test images that are drawn at random, the same ones at every call.

    Args:
        detectors: by name; they are asked in evaluation mode.
        cfg: of one test set, see :func:`~kddetr.engine.evaluation.sets.by_evaluation_set`.
        images: how many at most.
        deadline: no image is begun after it, but one is seen in any case.

    Raises:
        UsageError: the config describes its test images or its metric in another way than the
            configs here.
    """
    records, mapper, evaluator = _test_data(cfg)
    order = np.random.default_rng(0).permutation(len(records))[:images]
    seen: list[int] = []
    inputs: list[dict] = []
    outputs: dict[str, list[dict]] = {name: [] for name in detectors}
    seconds: dict[str, list[float]] = {name: [] for name in detectors}
    for i in order.tolist():
        x = mapper(copy.deepcopy(records[i]))
        for name, detector in detectors.items():
            output, spent = _timed(detector, x)
            outputs[name].append(output)
            seconds[name].append(spent)
        seen.append(i)
        inputs.append({key: x[key] for key in ("image_id", "height", "width") if key in x})
        if deadline.is_over:
            break
    asked = {}
    for name, detector in detectors.items():
        times = seconds[name][WARM_UP:] or seconds[name]
        results = evaluator.results_of(inputs, outputs[name]).get("bbox", {})
        found = tuple(output["instances"] for output in outputs[name])
        asked[name] = Asked(parameters(detector), tuple(times), results, found)
    truth = [_truth(evaluator, x) for x in inputs]
    device = next(next(iter(detectors.values())).parameters()).device
    clock = "processor time" if _counts_processor_time(device) else "wall-clock time"
    counts = dict.fromkeys(evaluator.truth.classes, 0)
    for thing in evaluator.truth.objects:
        counts[evaluator.truth.classes[thing["category_id"] - 1]] += 1
    shown, words = [records[i] for i in seen], _device_in_words(device)
    return Sample(shown, len(records), truth, counts, asked, words, clock)


def _test_data(cfg: DictConfig) -> tuple[list[dict], Callable[[dict], dict], CocoEvaluator]:
    """The dataset dicts of a test set, what makes inputs of them, and its evaluator."""
    test = cfg.dataloader.test
    if not all(key in test for key in ("dataset", "mapper")):
        raise UsageError(
            "The test loader of the config has no dataset and mapper, so the report cannot choose"
            " images: take kddetr.data.build_test_loader as dataloader.test."
        )
    evaluator = Trainer.build_evaluator(cfg)
    if not isinstance(evaluator, CocoEvaluator) or not evaluator.truth.objects:
        raise UsageError(
            "The test data have no boxes to compare with, or an evaluator of another kind than"
            " kddetr.engine.CocoEvaluator, so the report shows no detections."
        )
    return list(build(test.dataset)), build(test.mapper), evaluator


def _timed(detector: nn.Module, x: dict[str, Any]) -> tuple[dict, float]:
    """The output for one image, on the CPU, and the seconds that it took."""
    device = next(detector.parameters()).device
    # Other programs do not lengthen the processor time, which is that of one thread only.
    clock = time.process_time if _counts_processor_time(device) else time.perf_counter
    with inference_context(detector), torch.no_grad():
        if device.type == "cuda":
            torch.cuda.synchronize()
        started = clock()
        output = detector([x])[0]
        if device.type == "cuda":
            torch.cuda.synchronize()
        spent = clock() - started
    return {"instances": output["instances"].to("cpu")}, spent


def _counts_processor_time(device: torch.device) -> bool:
    return device.type == "cpu" and torch.get_num_threads() == 1


def _truth(evaluator: CocoEvaluator, x: dict[str, Any]) -> Instances:
    """The objects of an image, without those that need not be found."""
    coco = evaluator.truth.coco
    notes = coco.imgToAnns[evaluator.truth.number(x["image_id"])]
    notes = [note for note in notes if not note["iscrowd"]]
    boxes = torch.tensor([note["bbox"] for note in notes]).reshape(-1, 4)
    truth = Instances((x["height"], x["width"]))
    truth.gt_boxes = Boxes(torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], dim=1))
    truth.gt_classes = torch.tensor([n["category_id"] - 1 for n in notes], dtype=torch.long)
    return truth


def _device_in_words(device: torch.device) -> str:
    if device.type == "cuda":
        return f"one {torch.cuda.get_device_name(device)}"
    if _counts_processor_time(device):
        return f"one thread of a CPU ({_processor()})"
    return f"{torch.get_num_threads()} threads of a CPU ({_processor()})"


def _processor() -> str:
    """The name of the CPU, as far as the system tells it."""
    info = Path("/proc/cpuinfo")
    for line in info.read_text(encoding="utf-8").splitlines() if info.is_file() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
