"""Specific points: the teacher's own queries, where its answers are most precise (KD-DETR, 3.3)."""

from ..structures import Encoded, Queries


class SpecificSampler:
    """The teacher's learned queries, or its proposals of this very image.

    Args:
        count: only the first ones; None, as published: all. Proposals come best first (two-stage
            Deformable DETR, DINO, R-CNNs), learned queries in no order.

    Raises:
        ValueError: no points.
    """

    def __init__(self, *, count: int | None = None) -> None:
        if count is not None and count < 1:
            raise ValueError(f"{count} specific points are none: use at least 1, or no sampler.")
        self.count = count

    def __call__(self, teacher: Encoded, student: Encoded) -> Queries:
        """The teacher's N queries, one group called "specific"."""
        return teacher.queries().first(self.count).named("specific").detach()
