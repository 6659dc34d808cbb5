"""Several samplers side by side, such as general and specific points."""

from collections.abc import Sequence

from ..errors import UsageError
from ..returned import described, named_points
from ..structures import EncodedDetector, PointSampler, Queries


class JointSampler:
    """The points of all samplers, in groups that do not attend to one another.

    Args:
        samplers: their groups must have different names.

    Raises:
        ValueError: there is no sampler, or one cannot be called or is a class.
    """

    def __init__(self, samplers: Sequence[PointSampler]) -> None:
        if not isinstance(samplers, Sequence) or not samplers:
            raise ValueError(f"samplers must be a list of at least one sampler, not {samplers!r}.")
        for sampler in samplers:
            if isinstance(sampler, type):
                raise ValueError(
                    f"samplers has the class {sampler.__name__} itself: make an object of it, in a"
                    f" config with L({sampler.__name__})(...)."
                )
            if not callable(sampler):
                raise ValueError(f"samplers has {described(sampler)}, which cannot be called.")
        self.samplers = list(samplers)

    def __call__(self, teacher: EncodedDetector, student: EncodedDetector) -> Queries:
        """(B, N, ...) queries, the groups of the samplers in order.

        Raises:
            UsageError: a sampler returned no points in named groups, two groups have one name, or
                the points are of different numbers of images.
        """
        parts = [named_points(s(teacher, student), s) for s in self.samplers]
        shapes = [tuple(part.boxes.shape) for part in parts]
        if len({(images, size) for images, _, size in shapes}) > 1:
            raise UsageError(
                f"The points of several samplers have boxes of the shapes {shapes}: all need the"
                " same number of images, and either centres or whole boxes."
            )
        return Queries.join(parts)
