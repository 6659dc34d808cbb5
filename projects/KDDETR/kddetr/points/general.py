"""General points: drawn at random, anew at every step, never learned (KD-DETR, section 3.3).

A sparse scan of the whole image, which also reaches background and objects that nobody labelled.
"""

import torch
from torch import Tensor

from ..structures import Encoded, Queries

# DAB-DETR divides by a query's width and height.
SMALLEST = 0.01


def uniform_boxes(images: int, count: int) -> Tensor:
    """Centres uniform over the image, sizes uniform from a hundredth of it to the whole.

    Returns:
        (images, count, 4) ``cxcywh`` in [0, 1].
    """
    boxes = torch.rand(images, count, 4)
    boxes[..., 2:] = SMALLEST + (1 - SMALLEST) * boxes[..., 2:]
    return boxes


def normal_logit_boxes(images: int, count: int) -> Tensor:
    """N(0, 1) per coordinate, through a sigmoid, as the published code draws them.

    Returns:
        (images, count, 4) ``cxcywh`` in (0, 1), concentrated around one half.
    """
    return torch.randn(images, count, 4).sigmoid()


DISTRIBUTIONS = {"uniform": uniform_boxes, "normal_logit": normal_logit_boxes}


class GeneralSampler:
    """Random queries of the teacher's kind.

    Drawn from PyTorch's global CPU generator, which the trainer seeds for every step and process:
    a resumed run sees the points of the uninterrupted one, and every process sees others.

    Args:
        count: points an image; the paper finds 300 best on COCO, 10 and 900 worse.
        distribution: of the boxes: "uniform", or "normal_logit", the published code's. A teacher
            whose queries are not made of boxes (one-stage Deformable DETR) draws embeddings
            instead, and it makes no difference.
        shared: one set for all images of the process, as published; else one for each image.

    Raises:
        ValueError: an unknown distribution, or no points.
    """

    def __init__(
        self, *, count: int = 300, distribution: str = "uniform", shared: bool = True
    ) -> None:
        if distribution not in DISTRIBUTIONS:
            raise ValueError(
                f"Unknown distribution {distribution!r} of general points: use one of"
                f" {', '.join(DISTRIBUTIONS)}."
            )
        if count < 1:
            raise ValueError(f"{count} general points are none: use at least 1, or no sampler.")
        self.count = count
        self.draw = DISTRIBUTIONS[distribution]
        self.shared = shared

    def __call__(self, teacher: Encoded, student: Encoded) -> Queries:
        """(B, count, ...) queries, one group called "general"."""
        images = 1 if self.shared else len(teacher.queries().boxes)
        boxes = self.draw(images, self.count)
        return teacher.fresh_queries(boxes).named("general").detach()
