"""The base class of the wrappers around a teacher."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from ..errors import UsageError
from ..returned import described
from ..structures import (
    EncodedDetector,
    HasFeatureMaps,
    Predictions,
    Queries,
    QueryableDetector,
)


class TeacherWrapper(nn.Module):
    """A :class:`~kddetr.structures.QueryableDetector` that passes every call on to the one inside.

    Args:
        detector: a frozen detector, or another wrapper.

    Raises:
        UsageError: it does not answer queries.
    """

    def __init__(self, detector: QueryableDetector) -> None:
        super().__init__()
        if not isinstance(detector, QueryableDetector):
            raise UsageError(
                f"{type(self).__name__} is around {described(detector)}, which is not a"
                " QueryableDetector of kddetr.structures: take a detector of kddetr.detectors."
            )
        self.detector = detector

    @property
    def num_classes(self) -> int:
        """The number of classes K."""
        return self.detector.num_classes

    @property
    def query_parts(self) -> Mapping[str, int]:
        """See :class:`~kddetr.structures.QueryableDetector`."""
        return self.detector.query_parts

    def compile(self, *args: Any, **options: Any) -> None:
        """Compile the detector inside in place, as it does this itself."""
        self.detector.compile(*args, **options)

    def encode(self, inputs: list[dict[str, Any]]) -> Any:
        """See :meth:`~kddetr.structures.QueryableDetector.encode`."""
        return self.detector.encode(inputs)

    def feature_maps(self, memory: Any) -> Mapping[str, Sequence[Tensor]]:
        """See :meth:`~kddetr.structures.EncodedDetector.feature_maps`."""
        inside = self.detector
        return inside.feature_maps(memory) if isinstance(inside, HasFeatureMaps) else {}

    def queries(self, memory: Any) -> Queries:
        """See :meth:`~kddetr.structures.QueryableDetector.queries`."""
        return self.detector.queries(memory)

    def make_queries(self, memory: Any, boxes: Tensor) -> Queries:
        """See :meth:`~kddetr.structures.QueryableDetector.make_queries`."""
        return self.detector.make_queries(memory, boxes)

    def random_queries(self, memory: Any, images: int, count: int) -> Queries:
        """See :meth:`~kddetr.structures.QueryableDetector.random_queries`."""
        return self.detector.random_queries(memory, images, count)

    def decode(
        self, memory: Any, queries: Queries, layers: Sequence[int] | None = None
    ) -> Predictions:
        """See :meth:`~kddetr.structures.EncodedDetector.decode`."""
        return EncodedDetector(self.detector, memory).decode(queries, layers=layers)
