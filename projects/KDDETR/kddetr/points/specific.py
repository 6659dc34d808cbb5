"""Specific points: the teacher's own queries, where its answers are most precise (KD-DETR, 3.3)."""

from ..structures import Encoded, Queries


class SpecificSampler:
    """The teacher's learned queries, or its proposals of this very image."""

    def __call__(self, teacher: Encoded, student: Encoded) -> Queries:
        """The teacher's N queries, one group called "specific"."""
        return teacher.queries().named("specific").detach()
