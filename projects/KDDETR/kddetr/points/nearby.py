"""Boxes near the teacher's answers.

A region that lies exactly at the teacher's box has nothing to regress: its box target is "no
change". Moved a little, it resembles what a two-stage detector meets in its own proposals.
"""

from dataclasses import replace

import torch
from torch import Tensor

from ..predictions import LAST
from ..ranges import not_negative
from ..structures import EncodedDetector, Predictions, Queries
from ..transfer import to_device


def jittered(boxes: Tensor, *, shift: float, scale: float) -> Tensor:
    """Boxes moved and resized at random, drawn from PyTorch's CPU generator.

    Args:
        boxes: (..., 4) ``cxcywh``.
        shift: the centre moves by at most this fraction of the box's width and height, uniformly.
        scale: width and height are multiplied by exp(u), u uniform in [-scale, scale].

    Returns:
        (..., 4) ``cxcywh``; a box may reach beyond the image.
    """
    noise = to_device(2 * torch.rand(boxes.shape) - 1, boxes.device).to(boxes.dtype)
    centre, size = boxes[..., :2], boxes[..., 2:]
    return torch.cat(
        [centre + shift * noise[..., :2] * size, size * (scale * noise[..., 2:]).exp()], dim=-1
    )


class AtAnswers:
    """A query placement: the student is asked near the teacher's predicted boxes, not at the
    points.

    Teacher and student are then no longer asked exactly the same query. It is meant for detectors
    that classify and correct a given region, for which the teacher's box is where there is
    something to find.

    Args:
        shift: the centre moves by at most this fraction of the box's width and height, uniformly.
        scale: width and height are multiplied by exp(u), u uniform in [-scale, scale]. With 0 and 0
            the queries are exactly at the teacher's boxes.

    Raises:
        ValueError: one of them is negative.
    """

    def __init__(self, *, shift: float = 0.2, scale: float = 0.3) -> None:
        not_negative(shift=shift, scale=scale)
        self.shift, self.scale = shift, scale

    def __call__(self, points: Queries, answers: Predictions) -> Queries:
        """(B, N, 4) boxes without embeddings, in the groups of the points."""
        boxes = jittered(answers.boxes[-1].detach(), shift=self.shift, scale=self.scale)
        return replace(points, boxes=boxes, content=None, position=None)


class NearbySampler:
    """The boxes that the teacher predicts at its own queries, moved at random, as points for both.

    Args:
        shift, scale: see :class:`AtAnswers`.

    Raises:
        ValueError: one of them is negative.
    """

    def __init__(self, *, shift: float = 0.2, scale: float = 0.3) -> None:
        not_negative(shift=shift, scale=scale)
        self.shift, self.scale = shift, scale

    def __call__(self, teacher: EncodedDetector, student: EncodedDetector) -> Queries:
        """(B, N, ...) queries, one for each of the teacher's N, in one group called "nearby"."""
        found = teacher.decode(teacher.queries(), layers=LAST).boxes[-1]
        boxes = jittered(found, shift=self.shift, scale=self.scale)
        return teacher.make_queries(boxes).named("nearby").detach()
