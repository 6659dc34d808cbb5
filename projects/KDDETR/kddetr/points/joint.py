"""General to specific: several samplers side by side, whose points do not see one another."""

from collections.abc import Sequence

from ..structures import Encoded, PointSampler, Queries


class JointSampler:
    """The points of all samplers, one group each.

    Args:
        samplers: whose groups have different names.
    """

    def __init__(self, samplers: Sequence[PointSampler]) -> None:
        if not samplers:
            raise ValueError("A joint sampler needs samplers: give it at least one.")
        self.samplers = list(samplers)

    def __call__(self, teacher: Encoded, student: Encoded) -> Queries:
        return Queries.join([sampler(teacher, student) for sampler in self.samplers])
