"""Several samplers side by side, such as general and specific points."""

from collections.abc import Sequence

from ..structures import EncodedDetector, PointSampler, Queries


class JointSampler:
    """The points of all samplers, in groups that do not attend to one another.

    Args:
        samplers: their groups must have different names.

    Raises:
        ValueError: there is no sampler.
    """

    def __init__(self, samplers: Sequence[PointSampler]) -> None:
        if not samplers:
            raise ValueError("JointSampler needs at least one sampler.")
        self.samplers = list(samplers)

    def __call__(self, teacher: EncodedDetector, student: EncodedDetector) -> Queries:
        """(B, N, ...) queries, the groups of the samplers in order."""
        return Queries.join([sampler(teacher, student) for sampler in self.samplers])
