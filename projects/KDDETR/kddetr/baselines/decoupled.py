"""Decoupled knowledge distillation: the target class apart from the other classes."""

from torch import Tensor

from ..losses import KLDivergence
from ..ranges import not_negative

NEVER = -1e4  # the logit of a class that is left out, whose probability is exactly 0 in float32


class DecoupledKL(KLDivergence):
    """The decoupled KL divergence (DKD, Zhao et al., CVPR 2022) as the class term of TPRD.

    ``alpha`` times the KL of (target class, any other class), plus ``beta`` times the KL among the
    other classes, both summed over classes and multiplied by the squared temperature. The ordinary
    KL has the teacher's probability of another class as ``beta``, which is small where it is
    certain. The target class is the teacher's most likely class. TPRD's public code has the class
    of the matched object, and the ordinary KL at points that match none.

    Args:
        weight: of the term.
        temperature: T; 1 in TPRD's public code.
        alpha, beta: of the two parts, at least 0; 1 and 1 in TPRD's public code.

    Raises:
        ValueError: a number is negative, or the temperature not above 0.
        UsageError: see :class:`~kddetr.losses.KLDivergence`.
    """

    def __init__(
        self,
        *,
        weight: float = 1.0,
        temperature: float = 1.0,
        alpha: float = 1.0,
        beta: float = 1.0,
    ) -> None:
        super().__init__(weight=weight, temperature=temperature)
        not_negative(alpha=alpha, beta=beta)
        self.alpha, self.beta = alpha, beta

    def divergence(self, student: Tensor, teacher: Tensor) -> Tensor:
        """(L, B, N, K) and (1, B, N, K) logits to (L, B, N)."""
        target = teacher.argmax(-1, keepdim=True)
        pairs, others = [], []
        for logits in (student, teacher):
            log_p = (logits / self.temperature).log_softmax(-1)
            index = target.expand(*log_p.shape[:-1], 1)
            rest = log_p.scatter(-1, index, NEVER)
            of_target, of_rest = log_p.gather(-1, index), rest.logsumexp(-1, keepdim=True)
            pairs.append((of_target, of_rest))
            others.append(rest.log_softmax(-1))
        binary = sum(p.exp() * (p - q) for q, p in zip(*pairs, strict=True)).squeeze(-1)
        among = (others[1].exp() * (others[1] - others[0])).sum(-1)
        total: Tensor = (self.alpha * binary + self.beta * among) * self.temperature**2
        return total
