"""The base of a teacher's wrappers: it passes every call on to the detector inside."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ..structures import Predictions, Queries, QueryableDetector


class TeacherWrapper(nn.Module):
    """A :class:`~kddetr.structures.QueryableDetector` that answers exactly like the one inside.

    Args:
        detector: a frozen detector, or another wrapper.
    """

    def __init__(self, detector: QueryableDetector) -> None:
        super().__init__()
        self.detector = detector

    @property
    def num_classes(self) -> int:
        return self.detector.num_classes

    @property
    def query_parts(self) -> Mapping[str, int]:
        return self.detector.query_parts

    def encode(self, inputs: list[dict[str, Any]]) -> Any:
        return self.detector.encode(inputs)

    def queries(self, memory: Any) -> Queries:
        return self.detector.queries(memory)

    def make_queries(self, memory: Any, boxes: Tensor) -> Queries:
        return self.detector.make_queries(memory, boxes)

    def random_queries(self, memory: Any, images: int, count: int) -> Queries:
        return self.detector.random_queries(memory, images, count)

    def decode(self, memory: Any, queries: Queries) -> Predictions:
        return self.detector.decode(memory, queries)
