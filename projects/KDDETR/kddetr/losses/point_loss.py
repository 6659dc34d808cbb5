"""The distillation loss of KD-DETR (section 3.2): every student layer against the teacher's last
layer, at shared points, each weighted.

Shape letters: L student layers, B images, N points.
"""

from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UsageError
from ..parallel import normaliser, share_of_batch
from ..predictions import LAST
from ..returned import described, part_name, takes
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
        student_layers: the student's decoder layers that are compared with the teacher's last one:
            "all", as published, "last", or a list of their indices from 0. The heads of the others
            are not computed at the points. The loss is a sum over these layers, so fewer of them
            make it smaller.

    Attributes:
        student_layers, teacher_layers: indices of the layers that are compared; None: all.

    Raises:
        ValueError: two terms have the same name, so that one would replace the other, a term or the
            weighting cannot be called, or ``student_layers`` is something else.
    """

    default_class_weight = 10.0
    teacher_layers: Sequence[int] | None = LAST

    def __init_subclass__(cls, **options: Any) -> None:
        """A class with a forward of its own gets all layers of the teacher, unless it says which:
        a single one could be compared with each of the student's without an error.
        """
        super().__init_subclass__(**options)
        said_by: Any = next(kind for kind in cls.__mro__ if "teacher_layers" in vars(kind))
        if cls.forward is not said_by.forward:  # they were said for another one
            cls.teacher_layers = None

    def __init__(
        self,
        *,
        class_loss: PointTerm | None = None,
        box_losses: Sequence[PointTerm] | None = None,
        weighting: Callable[[Predictions], Tensor] | None = None,
        student_layers: str | Sequence[int] = "all",
    ) -> None:
        super().__init__()
        self.class_loss = class_loss or KLDivergence(weight=self.default_class_weight)
        if not isinstance(box_losses, Sequence | None):
            raise ValueError(f"box_losses must be a list of terms, not {described(box_losses)}.")
        self.box_losses = [L1Loss(), GIoULoss()] if box_losses is None else list(box_losses)
        self.weighting = weighting or ForegroundWeight()
        self.student_layers = _indices(student_layers)
        for term in (self.class_loss, *self.box_losses):
            named = isinstance(getattr(term, "name", None), str)
            weighted = isinstance(getattr(term, "weight", None), Real | Tensor)
            if not (takes(term, 2) and named and weighted):
                raise ValueError(
                    f"A term of a loss is {described(term)}, but it needs a name and a weight, a"
                    " text and a number, and is called with the predictions of student and teacher:"
                    " see kddetr.losses.PointTerm."
                )
        if not takes(self.weighting, 1):
            raise ValueError(
                f"weighting is {described(self.weighting)}, which cannot be called with the"
                " teacher's predictions alone."
            )
        # A list does not register the parameters that a term of one's own may have.
        self.learned_terms = nn.ModuleList(t for t in self.box_losses if isinstance(t, nn.Module))
        names = [term.name for term in (self.class_loss, *self.box_losses)]
        if len(set(names)) < len(names):
            raise ValueError(f"The terms of a loss need different names, not {', '.join(names)}.")

    def forward(
        self, student: Predictions, teacher: Predictions, points: Queries
    ) -> dict[str, Tensor]:
        """Weighted losses by name: ``kd_{group}/class``, ``kd_{group}/bbox``, ``kd_{group}/giou``.

        Args:
            student: predictions of all its layers at the points, or of ``student_layers`` only.
            teacher: predictions at the same points; only the last layer is used.
            points: ``points.groups`` says which points are averaged together.

        Raises:
            UsageError: the student does not have these layers.
        """
        student = student.of_layers(self.student_layers)
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

        Raises:
            UsageError: a term or the weighting returned another shape than (L, B, N) or (B, N).
        """
        # A detector with a box for every class is compared at the box of the teacher's class.
        best = teacher.logits[-1].argmax(-1)
        teacher, student = teacher.of_classes(best), student.of_classes(best)
        weights = _of_shape(self.weighting(teacher), teacher.logits.shape[1:3], self.weighting)
        if teacher.answered is not None:
            weights = weights * teacher.answered[-1]  # in the sums and in the divisors
        weights = self.balanced(weights)
        class_divisor, box_divisor = self.divisors(weights)
        losses = {}
        for term in (self.class_loss, *self.box_losses):
            values = _of_shape(term(student, teacher), student.logits.shape[:3], term)
            sums = (values * weights).sum((1, 2))
            divisor = class_divisor if term is self.class_loss else box_divisor
            losses[term.name] = term.weight * (sums / divisor).sum()
        return losses

    def balanced(self, weights: Tensor) -> Tensor:
        """The (B, N) weights as they enter the sums and the divisors: here as they are."""
        return weights

    def divisors(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """What the weighted sums of the class loss and of the box losses are divided by.

        Args:
            weights: (B, N) of the points of this process.

        Returns:
            the sum of the weights, averaged over the processes, for both.
        """
        total = normaliser(weights.sum(), least=SMALLEST_SUM)
        return total, total


class PublishedLoss(WeightedMeanLoss):
    """The reduction of the published code, which exists for DAB-DETR only.

    The class term is the sum of w * value over all points and images of a process and is not
    divided by anything. It therefore doubles with the images of a process and with the number of
    points. Its weight is 1: a class loss given here needs ``weight=1``, because its own default
    suits a mean. With equal weights the published code takes the mean instead. The box terms are
    weighted means, of each process by itself.
    """

    default_class_weight = 1.0

    def divisors(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """1 for the class loss, and the sum of the (B, N) weights of this process for the boxes."""
        total = normaliser(weights.sum(), least=SMALLEST_SUM, of_each_process=True)
        averaged = isinstance(self.weighting, EqualWeight)
        # The sum over all parts of a batch, where their losses are averaged.
        return total if averaged else torch.full_like(total, share_of_batch()), total


class PerImageLoss(WeightedMeanLoss):
    """The weighted mean of each term over the points of an image, averaged over the images.

    Every image counts the same. In :class:`WeightedMeanLoss` an image with more foreground counts
    more. The public code of TPRD (2026) reduces in this way; there the KL is summed over the
    classes and the L1 distance over the coordinates, which are factors K and 4 of the weights here.
    """

    def balanced(self, weights: Tensor) -> Tensor:
        """The (B, N) weights divided by their sum in each image."""
        return weights / weights.sum(1, keepdim=True).clamp(min=SMALLEST_SUM)


def _indices(student_layers: object) -> tuple[int, ...] | None:
    """The indices of the layers that ``student_layers`` says; None for all."""
    if student_layers == "all":
        return None
    if student_layers == "last":
        return LAST
    text = isinstance(student_layers, str)
    listed = isinstance(student_layers, Sequence) and not text and list(student_layers)
    if not listed or any(type(i) is not int for i in listed) or len(set(listed)) < len(listed):
        raise ValueError(
            'student_layers must be "all", "last" or a list of different whole numbers, the indices'
            f" of decoder layers counted from 0, not {student_layers!r}."
        )
    return tuple(listed)


def _of_shape(values: object, shape: Sequence[int], part: object) -> Tensor:
    """The values of a term or a weighting; a UsageError where their shape is another.

    A wrong shape could be broadcast without an error, and points would get other points' weights.
    """
    if not isinstance(values, Tensor) or values.shape != tuple(shape):
        raise UsageError(
            f"{part_name(part)} returned {described(values)}, but a term returns one value for each"
            " layer, image and point, (L, B, N), and a weighting (B, N); here that is"
            f" {tuple(shape)}."
        )
    return values
