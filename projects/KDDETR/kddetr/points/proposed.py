"""Points that the student proposes: its own regions become queries of the teacher (KD-DETR, section
on heterogeneous distillation).
"""

from ..ranges import whole
from ..structures import EncodedDetector, Queries


class StudentSampler:
    """The student's first queries, its best proposals where it has proposals, as boxes.

    The teacher makes a query of its own kind at each box, so both are compared where the student
    itself will have to classify.

    Args:
        count: points per image; fewer where the student has fewer queries.

    Raises:
        ValueError: ``count`` is less than 1.
    """

    def __init__(self, *, count: int = 300) -> None:
        whole(1, count=count)
        self.count = count

    def __call__(self, teacher: EncodedDetector, student: EncodedDetector) -> Queries:
        """(B, count, ...) queries in one group called "student"."""
        boxes = student.queries().first(self.count).boxes.detach()
        return teacher.make_queries(boxes).named("student").detach()
