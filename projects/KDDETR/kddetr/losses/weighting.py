"""How much each distillation point counts."""

from torch import Tensor

from ..structures import Predictions


class ForegroundWeight:
    """The foreground rebalance weight (KD-DETR, section 3.4): the teacher's highest class
    probability.

    Most points lie on background; weighted, they do not outweigh the few that lie on objects.
    """

    def __call__(self, teacher: Predictions) -> Tensor:
        """Weights of the points, (B, N) in (0, 1), from the teacher's last layer, without a
        gradient.
        """
        return teacher.logits[-1].detach().float().sigmoid().amax(-1)


class EqualWeight:
    """Every point counts the same."""

    def __call__(self, teacher: Predictions) -> Tensor:
        """(B, N) ones."""
        return teacher.logits.new_ones(teacher.logits.shape[1:3]).float()
