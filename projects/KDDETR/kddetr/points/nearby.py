"""Places beside the teacher's answers.

A region that lies exactly where the answer is has nothing to regress: its box target is "stay as
you are". Moved a little it is what a two-stage detector meets in its own proposals.
"""

from dataclasses import replace

import torch
from torch import Tensor

from ..structures import Encoded, Predictions, Queries


def jittered(boxes: Tensor, *, shift: float, scale: float) -> Tensor:
    """Boxes moved and resized at random.

    Args:
        boxes: (..., 4) ``cxcywh``.
        shift: the centre moves by at most this part of the box's width and height, uniformly.
        scale: width and height are multiplied by exp(u), u uniform in [-scale, scale].

    Returns:
        (..., 4) ``cxcywh``; drawn from PyTorch's CPU generator, as general points are.
    """
    noise = (2 * torch.rand(boxes.shape) - 1).to(boxes)
    centre, size = boxes[..., :2], boxes[..., 2:]
    return torch.cat(
        [centre + shift * noise[..., :2] * size, size * (scale * noise[..., 2:]).exp()], dim=-1
    )


class AtAnswers:
    """Asks the student where the teacher's answers are, moved at random, not at the points.

    A region is then near the answer, which is no longer the very same question; for a detector that
    only judges regions the answer is where there is something to judge.

    Args:
        shift, scale: see :func:`jittered`; 0: exactly at the answers.
    """

    def __init__(self, *, shift: float = 0.2, scale: float = 0.3) -> None:
        self.shift, self.scale = shift, scale

    def __call__(self, points: Queries, answers: Predictions) -> Queries:
        """Boxes alone, in the points' groups."""
        boxes = jittered(answers.boxes[-1].detach(), shift=self.shift, scale=self.scale)
        return replace(points, boxes=boxes, content=None, position=None)


class NearbySampler:
    """The teacher's answers to its own queries, moved at random, as new questions to both.

    Args:
        shift, scale: see :func:`jittered`.
    """

    def __init__(self, *, shift: float = 0.2, scale: float = 0.3) -> None:
        self.shift, self.scale = shift, scale

    def __call__(self, teacher: Encoded, student: Encoded) -> Queries:
        """(B, N, ...) queries for the teacher's N, one group called "nearby"."""
        found = teacher.decode(teacher.queries()).boxes[-1]
        boxes = jittered(found, shift=self.shift, scale=self.scale)
        return teacher.queries_at(boxes).named("nearby").detach()
