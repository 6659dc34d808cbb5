"""General points: drawn at random at every training step, never learned (KD-DETR, section 3.3).

They sample the whole image sparsely, so they also reach background and objects without a label.
"""

import torch
from torch import Tensor

from ..ranges import one_of, whole
from ..structures import EncodedDetector, Queries, queries_are_boxes

# DAB-DETR divides by the width and height of a query's box; this keeps them away from 0.
SMALLEST = 0.01


def uniform_boxes(images: int, count: int) -> Tensor:
    """Boxes with centres uniform over the image and sizes uniform between 0.01 and 1.

    Returns:
        (images, count, 4) ``cxcywh`` in [0, 1].
    """
    boxes = torch.rand(images, count, 4)
    boxes[..., 2:] = SMALLEST + (1 - SMALLEST) * boxes[..., 2:]
    return boxes


def normal_logit_boxes(images: int, count: int) -> Tensor:
    """Boxes whose coordinates are the sigmoid of N(0, 1), as the published code draws them.

    Returns:
        (images, count, 4) ``cxcywh`` in (0, 1), concentrated around 0.5.
    """
    return torch.randn(images, count, 4).sigmoid()


DISTRIBUTIONS = {"uniform": uniform_boxes, "normal_logit": normal_logit_boxes}


class GeneralSampler:
    """Random queries of the teacher's kind.

    They are drawn from PyTorch's global CPU generator, which the trainer seeds for every step and
    process: a resumed run draws the same points as the uninterrupted run, and each process draws
    its own.

    Args:
        count: points per image. The paper finds 300 best on COCO, and 10 and 900 worse.
        distribution: of the boxes: "uniform", or "normal_logit" as in the published code. It makes
            no difference for a teacher whose queries are not made of boxes (one-stage Deformable
            DETR), which draws embeddings instead.
        shared: one set for all images of a process, as published; else one set for each image.

    Raises:
        ValueError: an unknown distribution, or ``count`` is less than 1.
    """

    def __init__(
        self, *, count: int = 300, distribution: str = "uniform", shared: bool = True
    ) -> None:
        one_of(DISTRIBUTIONS, distribution=distribution)
        whole(1, count=count)
        self.count = count
        self.draw_boxes = DISTRIBUTIONS[distribution]
        self.shared = shared

    def __call__(self, teacher: EncodedDetector, student: EncodedDetector) -> Queries:
        """(B, count, ...) queries in one group called "general"."""
        images = 1 if self.shared else len(teacher.queries().boxes)
        if queries_are_boxes(teacher.detector):
            queries = teacher.make_queries(self.draw_boxes(images, self.count))
        else:
            queries = teacher.random_queries(images, self.count)
        return queries.named("general").detach()
