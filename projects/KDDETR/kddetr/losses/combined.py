"""Losses that are made of other losses: layer against layer, one for each group, or a sum."""

from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor, nn

from ..errors import UsageError
from ..returned import part_name
from ..structures import DistillationLoss, Predictions, Queries, compared_layers


class LayerByLayer(nn.Module):
    """Another loss between each layer of the student and the teacher's layer of the same number.

    The published KD-DETR compares every layer of the student with the teacher's last one. Layers
    are counted from the last one. Where the student has more layers than the teacher, its first
    ones are compared with the teacher's first; where it has fewer, the teacher's first ones are not
    used.

    Args:
        loss: is called for one layer of each, and must compare all layers that it gets. A weighting
            in it weighs the points by this layer of the teacher.
    """

    def __init__(self, loss: DistillationLoss) -> None:
        super().__init__()
        self.loss = loss

    def forward(
        self, student: Predictions, teacher: Predictions, points: Queries
    ) -> dict[str, Tensor]:
        """The losses of the layers, summed by name; all layers of both are needed."""
        ahead = teacher.num_layers - student.num_layers
        total: dict[str, Tensor] = {}
        for i in range(student.num_layers):
            pair = student.of_layers([i]), teacher.of_layers([max(i + ahead, 0)])
            for name, value in self.loss(*pair, points).items():
                total[name] = total[name] + value if name in total else value
        return total


class ByGroup(nn.Module):
    """A loss of its own for each group of points.

    Args:
        losses: by the name of the group, such as ``general`` and ``specific``, which must return
            different names.

    Attributes:
        student_layers, teacher_layers: indices of the layers where all losses compare the same;
            None: all.

    Raises:
        ValueError: there is no loss.
    """

    def __init__(self, **losses: DistillationLoss) -> None:
        super().__init__()
        if not losses:
            raise ValueError("ByGroup needs a loss for each group, such as general=loss.")
        self.losses = losses
        self.student_layers, self.teacher_layers = compared_layers(*losses.values())
        # A dictionary does not register the parameters that a loss of one's own may have.
        self.learned = nn.ModuleList(x for x in losses.values() if isinstance(x, nn.Module))

    def forward(
        self, student: Predictions, teacher: Predictions, points: Queries
    ) -> dict[str, Tensor]:
        """The losses of all groups.

        Raises:
            UsageError: the groups of the points are others, or two losses return a loss of the
                same name.
        """
        if points.groups.keys() != self.losses.keys():
            raise UsageError(
                f"ByGroup has losses for the groups {', '.join(self.losses)}, and the points are in"
                f" the groups {', '.join(points.groups)}: give one loss for each of them."
            )
        parts = (x.split(points.groups) for x in (student, teacher))
        ours, theirs = parts
        return _joined(
            (
                self.losses[group](ours[group], theirs[group], part)
                for group, part in points.split().items()
            ),
            self,
        )


class SumOfLosses(nn.Module):
    """Several losses at the same points.

    Args:
        losses: which must return different names.

    Attributes:
        student_layers, teacher_layers: see :class:`ByGroup`.

    Raises:
        ValueError: there is no loss.
    """

    def __init__(self, losses: Sequence[DistillationLoss]) -> None:
        super().__init__()
        if not losses:
            raise ValueError("losses must be a list of at least one loss.")
        self.losses = list(losses)
        self.student_layers, self.teacher_layers = compared_layers(*losses)
        self.learned = nn.ModuleList(x for x in losses if isinstance(x, nn.Module))

    def forward(
        self, student: Predictions, teacher: Predictions, points: Queries
    ) -> dict[str, Tensor]:
        """The losses of all.

        Raises:
            UsageError: two of them return a loss of the same name.
        """
        return _joined((loss(student, teacher, points) for loss in self.losses), self)


def _joined(parts: Iterable[Mapping[str, Tensor]], owner: nn.Module) -> dict[str, Tensor]:
    """The losses of all parts by name.

    Args:
        parts: what each loss returned.
        owner: the loss that they are parts of, for the message.

    Raises:
        UsageError: two of them return a loss of the same name, so that one would be lost.
    """
    total: dict[str, Tensor] = {}
    for found in parts:
        if twice := total.keys() & found.keys():
            raise UsageError(
                f"Two losses of a {part_name(owner)} return {', '.join(sorted(twice))}: let each"
                " return names of its own."
            )
        total |= found
    return total
