"""Points that the student proposes: its own regions become queries of the teacher (KD-DETR, section
on heterogeneous distillation).
"""

from ..structures import Encoded, Queries


class StudentSampler:
    """The best of the student's own queries or proposals, as boxes.

    The teacher makes a query of a box (x, y, w, h) by its own positional path,
    MLP(PE(x + w/2, y + h/2, w, h)); so the student asks about the places that it will have to judge
    itself.

    Args:
        count: points an image, the student's first ones; fewer where it has fewer.

    Raises:
        ValueError: no points.
    """

    def __init__(self, *, count: int = 300) -> None:
        if count < 1:
            raise ValueError(f"{count} of the student's proposals are none: use at least 1.")
        self.count = count

    def __call__(self, teacher: Encoded, student: Encoded) -> Queries:
        """(B, count, ...) queries, one group called "student"."""
        boxes = student.queries().first(self.count).boxes.detach()
        return teacher.queries_at(boxes).named("student").detach()
