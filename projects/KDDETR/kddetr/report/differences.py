"""The points at which two detectors differ most, and a picture of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor

from ..boxes import cxcywh_to_xyxy
from ..gap import gap_at_points
from ..losses import ForegroundWeight
from ..structures import Predictions, Queries
from ..visualization import detections_side_by_side

SHOWN_IMAGES, SHOWN_POINTS = 4, 5
COLOURS = 10  # of a picture's palette, after which they repeat
POINTS = "points (number, difference)"
ANSWERS = "{} (number: class, score)"


@dataclass(frozen=True)
class Difference:
    """The points of one image at which A and B differ most.

    Attributes:
        image: (H, W, 3) uint8.
        name: of the image.
        size: (n,) how much they differ, from 0 to 1, the largest first.
        places: (n, 4) boxes of the points; None where they have no sizes.
        answers: of A and of B, each (n, 4) boxes, (n,) scores and (n,) classes.
    """

    image: Any
    name: str
    size: Tensor
    places: Tensor | None
    answers: list[tuple[Tensor, Tensor, Tensor]]


def differences(
    inputs: list[dict], student: Predictions, teacher: Predictions, points: Queries
) -> list[Difference]:
    """The most different points of each image.

    Two predictions differ by the largest difference of a class's probability, or by 1 - IoU times
    the foreground weight, whichever is larger.
    """
    iou = gap_at_points(student, teacher)["iou"]
    asked = [p.logits[-1].float().sigmoid() for p in (teacher, student)]  # each (B, N, K)
    apart = torch.maximum(
        (asked[0] - asked[1]).abs().amax(-1), (1 - iou) * ForegroundWeight()(teacher)
    )
    found = []
    for i, x in enumerate(inputs):
        size, order = apart[i].topk(min(SHOWN_POINTS, apart.shape[1]))
        answers = []
        for p, probabilities in zip((teacher, student), asked, strict=True):
            scores, classes = probabilities[i, order].max(-1)
            if p.classes is not None:  # the columns are for some of the student's classes
                classes = p.classes[classes]
            answers.append((p.boxes[-1, i, order].cpu(), scores.cpu(), classes.cpu()))
        boxes = points.boxes[i, order].cpu() if points.boxes.shape[-1] == 4 else None
        image = x["image"].permute(1, 2, 0).cpu().numpy()
        name = Path(str(x.get("file_name", x.get("image_id", "")))).stem
        found.append(Difference(image, name, size.cpu(), boxes, answers))
    return found


def most_different(found: list[Difference]) -> list[Difference]:
    """The few images whose points differ most."""
    with_points = [one for one in found if len(one.size)]
    return sorted(with_points, key=lambda one: -float(one.size.sum()))[:SHOWN_IMAGES]


def draw_differences(
    worst: list[Difference],
    names: Sequence[str],
    path: Path,
    *,
    detectors: tuple[str, str] = ("A", "B"),
) -> Path:
    """Draws each image three times: with the points, and with the predictions of both there.

    The points of an image are numbered, and each has one colour in all three.

    Args:
        worst: see :func:`most_different`.
        names: of the classes; numbers are shown where there are none.
        path: the file.
        detectors: what the two are called.
    """
    heads = (POINTS, *(ANSWERS.format(name) for name in detectors))
    labels, columns = [], {name: [] for name in heads}
    for one in worst:
        numbers = [str(i + 1) for i in range(len(one.size))]
        seen = [] if one.places is None else [(one.places, one.size, None)]
        for column, (boxes, scores, classes) in zip(
            heads[len(heads) - len(seen) - 2 :], [*seen, *one.answers], strict=True
        ):
            texts = numbers
            if classes is not None:
                known = [names[c] if names else str(int(c)) for c in classes]
                texts = [f"{number}: {name}" for number, name in zip(numbers, known, strict=True)]
            height, width = one.image.shape[:2]
            scale = torch.tensor([width, height, width, height])
            drawn = Instances((height, width))
            drawn.pred_boxes = Boxes(cxcywh_to_xyxy(boxes.float()) * scale)
            drawn.scores = scores
            drawn.pred_classes = len(labels) + torch.arange(len(texts))
            columns[column].append(drawn)
            labels += texts + [""] * (COLOURS - len(texts))
    columns = {name: column for name, column in columns.items() if column}
    return detections_side_by_side(
        [one.image for one in worst],
        columns,
        class_names=labels,
        path=path,
        score_threshold=0.0,
        titles=[one.name for one in worst],
    )
