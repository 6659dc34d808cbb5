"""Specific points: the teacher's own queries, where its answers are most precise (KD-DETR, 3.3)."""

from ..structures import Answerer, Queries


class SpecificSampler:
    """The teacher's learned queries, or its proposals of this very image."""

    def __call__(self, teacher: Answerer, memory) -> Queries:
        """The teacher's N queries, one group called "specific"."""
        return teacher.queries(memory).named("specific").detach()
