"""A control: the student is asked at other places than the teacher."""

from dataclasses import replace

import torch

from ..errors import UsageError
from ..points import uniform_boxes
from ..ranges import fraction
from ..structures import Predictions, Queries
from ..transfer import to_device


class OtherPlaces:
    """A query placement: only a share of the points are the same for teacher and student.

    Each point of each image is kept with the probability ``share``. Otherwise the student is asked
    at a box drawn by :func:`~kddetr.points.uniform_boxes`, while the teacher's predictions remain
    those at the point. With a share of 1 this is KD-DETR itself.

    Args:
        share: of the points at which both are asked the same, from 0 to 1.

    Raises:
        ValueError: the share is not from 0 to 1.
    """

    def __init__(self, *, share: float = 0.0) -> None:
        fraction(share=share)
        self.share = share

    def __call__(self, points: Queries, answers: Predictions) -> Queries:
        """(B, N, 4) boxes in the groups of the points.

        Raises:
            UsageError: the points have learned embeddings, or a centre without a size.
        """
        if points.content is not None or points.position is not None:
            raise UsageError(
                "OtherPlaces needs a teacher whose queries are boxes and nothing else (DAB-DETR,"
                " DAB-Deformable-DETR), because a query placement cannot give a learned embedding"
                " to the student: take another teacher."
            )
        points.require_sizes()
        images, count = points.boxes.shape[:2]
        other = to_device(uniform_boxes(images, count), points.boxes.device)
        kept = to_device(torch.rand(images, count, 1) < self.share, points.boxes.device)
        return replace(points, boxes=torch.where(kept, points.boxes, other.to(points.boxes.dtype)))
