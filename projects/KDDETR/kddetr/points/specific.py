"""Specific points: the teacher's own queries, where its predictions are most precise (KD-DETR,
3.3).
"""

from ..structures import EncodedDetector, Queries


class SpecificSampler:
    """The teacher's learned queries, or its proposals for these images.

    Args:
        count: take only the first ones; None: all, as published. Proposals come with the best first
            (two-stage Deformable DETR, DINO, R-CNNs), learned queries come in no particular order.

    Raises:
        ValueError: ``count`` is less than 1.
    """

    def __init__(self, *, count: int | None = None) -> None:
        if count is not None and count < 1:
            raise ValueError(f"count of specific points must be at least 1, not {count}.")
        self.count = count

    def __call__(self, teacher: EncodedDetector, student: EncodedDetector) -> Queries:
        """The teacher's (B, N, ...) queries in one group called "specific"."""
        return teacher.queries().first(self.count).named("specific").detach()
