"""Target-aware queries: teacher and student are asked where the ground truth has objects."""

import torch
from torch import Tensor

from ..points import jittered, uniform_boxes
from ..ranges import not_negative, whole
from ..structures import EncodedDetector, Queries
from .truth import ground_truth


class TargetSampler:
    """The target-aware queries of CLoCKDistill (Lan and Tian, WACV 2026): ground-truth boxes as
    points for both detectors.

    There a query is made of class and box. A class embedding that teacher and student share does
    not exist here, so the box alone is the point. Each image needs the same number of points. Where
    it has fewer objects, further points are its boxes again, moved at random; where it has more,
    the first ones are taken. An image without objects or without labels has random boxes.

    Args:
        count: points per image.
        shift, scale: of the moved boxes, see :func:`~kddetr.points.jittered`.

    Raises:
        ValueError: ``count`` is less than 1, or ``shift`` or ``scale`` is negative.
    """

    def __init__(self, *, count: int = 20, shift: float = 0.2, scale: float = 0.3) -> None:
        whole(1, count=count)
        not_negative(shift=shift, scale=scale)
        self.count, self.shift, self.scale = count, shift, scale

    def __call__(self, teacher: EncodedDetector, student: EncodedDetector) -> Queries:
        """(B, count, ...) queries in one group called "targets"."""
        targets = ground_truth(teacher, torch.device("cpu"))
        boxes = torch.stack([self._boxes(None if t is None else t.boxes) for t in targets])
        return teacher.make_queries(boxes).named("targets").detach()

    def _boxes(self, objects: Tensor | None) -> Tensor:
        """(count, 4) boxes of an image, of its (T, 4) objects where there are any."""
        if objects is None or not len(objects):
            return uniform_boxes(1, self.count)[0]
        repeated = objects[torch.arange(self.count) % len(objects)]
        first = (torch.arange(self.count) < len(objects))[:, None]
        return torch.where(first, repeated, jittered(repeated, shift=self.shift, scale=self.scale))
