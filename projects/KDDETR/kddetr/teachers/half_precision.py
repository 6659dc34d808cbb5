"""A wrapper that keeps a teacher's large weights in half precision, and computes in it."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UsageError
from ..ranges import one_of
from ..structures import Predictions, Queries, QueryableDetector
from .wrapper import TeacherWrapper

# What autocast computes in half precision; norms, embeddings and anchors stay in float32.
CAST = (nn.Linear, nn.MultiheadAttention, nn.modules.conv._ConvNd)


class HalfPrecision(TeacherWrapper):
    """A frozen detector whose linear and convolution weights take half the memory.

    Its answers are those of the same detector under ``torch.autocast``, which rounds these weights
    at every call: it rounds them once. It computes in that type in every run, also where the
    student is trained in float32. Boxes and logits are float32, as ever.

    Args:
        detector: a frozen detector; its weights are changed in place.
        dtype: "bfloat16", or "float16", which a teacher with values above 65504 overflows.

    Raises:
        ValueError: another dtype.
        UsageError: the detector has no weights, as a recorded teacher.
    """

    def __init__(self, detector: QueryableDetector, *, dtype: str = "bfloat16") -> None:
        super().__init__(detector)
        one_of(("bfloat16", "float16"), dtype=dtype)
        self.dtype: torch.dtype = getattr(torch, dtype)
        if next(self.parameters(), None) is None:
            raise UsageError(
                f"HalfPrecision is for a detector with weights, and a {type(detector).__name__} has"
                " none: leave it out."
            )
        for module in self.modules():
            if isinstance(module, CAST):
                for parameter in module.parameters(recurse=False):
                    parameter.requires_grad_(False)
                    parameter.data = parameter.data.to(self.dtype)

    def encode(self, inputs: list[dict[str, Any]]) -> Any:
        """See :meth:`~kddetr.structures.QueryableDetector.encode`."""
        with self._rounding():
            return super().encode(inputs)

    def queries(self, memory: Any) -> Queries:
        """See :meth:`~kddetr.structures.QueryableDetector.queries`."""
        with self._rounding():
            return super().queries(memory)

    def make_queries(self, memory: Any, boxes: Tensor) -> Queries:
        """See :meth:`~kddetr.structures.QueryableDetector.make_queries`."""
        with self._rounding():
            return super().make_queries(memory, boxes)

    def random_queries(self, memory: Any, images: int, count: int) -> Queries:
        """See :meth:`~kddetr.structures.QueryableDetector.random_queries`."""
        with self._rounding():
            return super().random_queries(memory, images, count)

    def decode(
        self, memory: Any, queries: Queries, layers: Sequence[int] | None = None
    ) -> Predictions:
        """See :meth:`~kddetr.structures.EncodedDetector.decode`."""
        with self._rounding():
            return super().decode(memory, queries, layers)

    def _rounding(self) -> torch.autocast:
        device = next(self.parameters()).device
        return torch.autocast(device.type, dtype=self.dtype)
