"""What a record keeps of a teacher's predictions for one image, and what becomes of it later.

Shape letters: B images, N queries, K classes, n answers of an image, k classes kept of each answer.
"""

from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from ..boxes import cxcywh_to_xyxy, xyxy_to_cxcywh
from ..data.affine import move_boxes
from ..data.mapper import clipped
from ..structures import Predictions, Queries


@dataclass(frozen=True)
class Answers:
    """The best answers of a teacher for one image, the best first.

    Attributes:
        boxes: (n, 4) float32, ``cxcywh`` in [0, 1] of the image file.
        classes: (n, k) int16, the most likely classes, the most likely first.
        logits: (n, k) float16, their logits before the sigmoid.
        rest: (n,) float16, the mean logit of the other K - k classes.
        queries: (n, 4) float16, the boxes of the queries; the answers' own boxes where the teacher
            has no queries of boxes.
        rows: (n,) int16, the row of each query's learned content in the record's table; 0 where
            there is none.
    """

    boxes: Tensor
    classes: Tensor
    logits: Tensor
    rest: Tensor
    queries: Tensor
    rows: Tensor

    def __len__(self) -> int:
        return len(self.boxes)

    def select(self, index: Tensor) -> "Answers":
        """The answers at an index or where a mask is true."""
        return Answers(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    def all_logits(self, num_classes: int) -> Tensor:
        """(n, K) float32 logits; the classes that were not kept share the ``rest``."""
        whole = self.rest.float()[:, None].repeat(1, num_classes)
        return whole.scatter_(1, self.classes.long(), self.logits.float())

    def moved(
        self, affine: np.ndarray, file_size: tuple[int, int], image_size: tuple[int, int]
    ) -> "Answers":
        """The answers in an augmented image.

        As in the ground truth, a box is cut at the edges of the image, and an answer of whose box
        nothing is left is gone. The box of a query is only kept in [0, 1].

        Args:
            affine: (2, 3), from :func:`kddetr.data.affine.affine_of`.
            file_size, image_size: (height, width) of the file and of the augmented image.
        """
        boxes, inside = clipped(move_boxes(affine, _pixels(self.boxes, file_size)), image_size)
        queries = move_boxes(affine, _pixels(self.queries, file_size))
        moved = {
            "boxes": _normalised(boxes, image_size),
            "queries": _normalised(queries, image_size).clamp(0, 1),
        }
        whole = Answers(**{f.name: moved.get(f.name, getattr(self, f.name)) for f in fields(self)})
        return whole.select(torch.from_numpy(inside))


def best_answers(
    predictions: Predictions, queries: Queries, *, keep: int, top_classes: int
) -> list[Answers]:
    """The ``keep`` answers of the last layer with the most likely classes, for each of B images.

    Args:
        predictions: of a teacher.
        queries: that it was asked, its own.
        keep: how many answers of an image are kept.
        top_classes: k, how many classes of an answer are kept.
    """
    logits, boxes = predictions.logits[-1].float().cpu(), predictions.boxes[-1].float().cpu()
    asked = queries.boxes.float().cpu() if queries.boxes.shape[-1] == 4 else boxes
    order = logits.amax(-1).argsort(dim=1, descending=True, stable=True)[:, :keep]
    return [
        answers_of(logits[i][rows], boxes[i][rows], asked[i][rows], rows, top_classes=top_classes)
        for i, rows in enumerate(order)
    ]


def answers_of(
    logits: Tensor, boxes: Tensor, queries: Tensor, rows: Tensor, *, top_classes: int
) -> Answers:
    """Answers of an image from their (n, K) logits, (n, 4) boxes and queries, and (n,) rows."""
    num_classes = logits.shape[1]
    values, classes = logits.topk(min(top_classes, num_classes), dim=1)
    others = num_classes - values.shape[1]
    rest = (logits.sum(1) - values.sum(1)) / max(1, others)
    return Answers(
        boxes=boxes.float().contiguous(),
        classes=classes.to(torch.int16),
        logits=values.half(),
        rest=rest.half(),
        queries=queries.half(),
        rows=rows.to(torch.int16),
    )


def _pixels(boxes: Tensor, size: tuple[int, int]) -> np.ndarray:
    """Boxes as (n, 4) float64 XYXY in pixels of an image of (height, width) = ``size``."""
    return (cxcywh_to_xyxy(boxes.double()) * _scale(size)).numpy()


def _normalised(boxes: np.ndarray, size: tuple[int, int]) -> Tensor:
    """The reverse of :func:`_pixels`, float32."""
    return xyxy_to_cxcywh(torch.from_numpy(boxes) / _scale(size)).float()


def _scale(size: tuple[int, int]) -> Tensor:
    height, width = size
    return torch.tensor([width, height, width, height], dtype=torch.float64)
