"""Points that the student proposes: its own regions become queries of the teacher (KD-DETR, section
on heterogeneous distillation).
"""

from ..structures import EncodedDetector, Queries


class StudentSampler:
    """The first of the student's own queries or proposals, as boxes.

    The teacher makes a query of each box (x, y, w, h) in its own way, MLP(PE(x + w/2, y + h/2, w,
    h)), so both are compared at the places that the student itself will have to classify.

    Args:
        count: points an image; fewer where the student has fewer queries.

    Raises:
        ValueError: less than one point.
    """

    def __init__(self, *, count: int = 300) -> None:
        if count < 1:
            raise ValueError(f"count of the student's points must be at least 1, not {count}.")
        self.count = count

    def __call__(self, teacher: EncodedDetector, student: EncodedDetector) -> Queries:
        """(B, count, ...) queries in one group called "student"."""
        boxes = student.queries().first(self.count).boxes.detach()
        return teacher.make_queries(boxes).named("student").detach()
