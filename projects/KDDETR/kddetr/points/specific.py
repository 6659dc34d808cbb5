"""Specific points: the teacher's own queries, where its predictions are most precise (KD-DETR,
3.3).
"""

import logging

from detectron2.utils.logger import log_first_n

from ..ranges import whole
from ..structures import EncodedDetector, Queries


class SpecificSampler:
    """The teacher's learned queries, or its proposals for these images.

    Args:
        count: take only the first ones, or all where the teacher has fewer, with a warning; None:
            all, as published. Proposals come with the best first (two-stage Deformable DETR, DINO,
            R-CNNs), learned queries come in no particular order.

    Raises:
        ValueError: ``count`` is less than 1.
    """

    def __init__(self, *, count: int | None = None) -> None:
        if count is not None:
            whole(1, count=count)
        self.count = count

    def __call__(self, teacher: EncodedDetector, student: EncodedDetector) -> Queries:
        """The teacher's (B, N, ...) queries in one group called "specific"."""
        queries = teacher.queries()
        if self.count is not None and self.count > len(queries):
            message = (
                f"SpecificSampler has count={self.count}, but the teacher has {len(queries)}"
                " queries for these images: all of them are the points."
            )
            log_first_n(logging.WARNING, message, name=__name__)
        return queries.first(self.count).named("specific").detach()
