"""The distillation loss of KD-DETR (section 3.2): every student layer against the teacher's last
layer, at shared points, each weighted.

Shape letters: L student layers, B images, N points.
"""

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from ..parallel import mean_over_processes
from ..structures import Predictions, Queries
from .terms import GIoULoss, KLDivergence, L1Loss, PointTerm
from .weighting import EqualWeight, ForegroundWeight

# A teacher can be so certain of background everywhere that the sum of its weights is 0 in float32.
SMALLEST_SUM = 1e-30


class WeightedMeanLoss(nn.Module):
    """The weighted mean of each term over the points, summed over the student's layers.

    Each term is sum(w * value) / sum(w), over all images of all processes, for each group of points
    by itself. It does not depend on the batch size, the number of points or the number of
    processes, so the weights of the terms keep their meaning when a config is moved to other
    hardware. The published reduction is :class:`PublishedLoss`.

    Args:
        class_loss: compares the classes; default :class:`KLDivergence`.
        box_losses: compare the boxes; default :class:`L1Loss` and :class:`GIoULoss`.
        weighting: the teacher's (1, B, N, ...) predictions to (B, N) weights; default
            :class:`ForegroundWeight`.
    """

    def __init__(
        self,
        *,
        class_loss: PointTerm | None = None,
        box_losses: Sequence[PointTerm] | None = None,
        weighting: Callable[[Predictions], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.class_loss = class_loss or self.default_class_loss()
        self.box_losses = [L1Loss(), GIoULoss()] if box_losses is None else list(box_losses)
        self.weighting = weighting or ForegroundWeight()

    @staticmethod
    def default_class_loss() -> PointTerm:
        """The class loss with the weight that suits this reduction."""
        return KLDivergence(weight=10.0)

    def forward(
        self, student: Predictions, teacher: Predictions, points: Queries
    ) -> dict[str, Tensor]:
        """Weighted losses by name: ``kd_{group}/class``, ``kd_{group}/bbox``, ``kd_{group}/giou``.

        Args:
            student: predictions of all its layers at the points.
            teacher: predictions at the same points; only the last layer is used.
            points: ``points.groups`` says which points are averaged together.
        """
        of_teacher = teacher.last().detach().split(points.groups)
        return {
            f"kd_{group}/{name}": value
            for group, of_student in student.split(points.groups).items()
            for name, value in self.losses_of_group(of_student, of_teacher[group]).items()
        }

    def losses_of_group(self, student: Predictions, teacher: Predictions) -> dict[str, Tensor]:
        """Weighted losses of one group of points, summed over the student's layers, by term.

        Args:
            student: (L, B, N, ...).
            teacher: (1, B, N, ...), without a gradient.
        """
        # A detector with a box for every class is compared at the box of the teacher's class.
        best = teacher.logits[-1].argmax(-1)
        teacher, student = teacher.of_classes(best), student.of_classes(best)
        weights = self.weighting(teacher)
        total = self.total_weight(weights).clamp(min=SMALLEST_SUM)
        losses = {}
        for term in (self.class_loss, *self.box_losses):
            sums = (term(student, teacher) * weights).sum((1, 2))
            is_sum = term is self.class_loss and self.sums_class_loss
            losses[term.name] = term.weight * (sums if is_sum else sums / total).sum()
        return losses

    @property
    def sums_class_loss(self) -> bool:
        """Whether the class loss is a sum over the points and not a mean."""
        return False

    def total_weight(self, weights: Tensor) -> Tensor:
        """What a mean over the points is divided by: the sum of all (B, N) weights, over all images
        of all processes, divided by the number of processes.
        """
        return mean_over_processes(weights.sum())


class PublishedLoss(WeightedMeanLoss):
    """The reduction of the published code, which exists for DAB-DETR only.

    The class term is the sum of w * value over all points and images of a process and is not
    divided by anything. It therefore doubles with the images of a process and with the number of
    points; its weight is 1. With equal weights the published code takes the mean instead. The box
    terms are weighted means, of each process by itself.
    """

    @staticmethod
    def default_class_loss() -> PointTerm:
        """The published class loss, whose weight is 1."""
        return KLDivergence(weight=1.0)

    @property
    def sums_class_loss(self) -> bool:
        """True, except with equal weights."""
        return not isinstance(self.weighting, EqualWeight)

    def total_weight(self, weights: Tensor) -> Tensor:
        """The sum of the (B, N) weights over the images of this process."""
        return weights.sum()
