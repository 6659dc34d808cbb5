"""A loss at regions near the teacher's boxes, beside another one at the boxes themselves."""

from dataclasses import replace

from torch import Tensor, nn

from ..points import jittered
from ..ranges import not_negative
from ..structures import DistillationLoss, Predictions, Queries
from .truth import encoded_of


class AtMovedBoxes(nn.Module):
    """Another loss, for which the student is asked once more, near the teacher's predicted boxes.

    An R-CNN that is asked exactly at the teacher's boxes learns their classes, but from box terms
    it would learn that nothing has to be corrected. This asks it at moved boxes for those alone.

    Args:
        loss: compares the student's further predictions with the teacher's.
        shift, scale: see :func:`kddetr.points.jittered`.

    Raises:
        ValueError: one of the numbers is negative.
    """

    def __init__(self, loss: DistillationLoss, *, shift: float = 0.2, scale: float = 0.3) -> None:
        super().__init__()
        not_negative(shift=shift, scale=scale)
        self.loss, self.shift, self.scale = loss, shift, scale

    def forward(
        self, student: Predictions, teacher: Predictions, points: Queries
    ) -> dict[str, Tensor]:
        """The losses of the other loss, named ``..._moved``."""
        encoded = encoded_of(student, self)
        boxes = jittered(teacher.boxes[-1].detach(), shift=self.shift, scale=self.scale)
        queries = replace(encoded.make_queries(boxes), groups=points.groups)
        found = self.loss(encoded.decode(queries), teacher, points)
        return {f"{name}_moved": value for name, value in found.items()}
