"""A model of Detectron2 as a function of tensors, for torch.jit.trace."""

import builtins
from typing import Any
from unittest import mock

import torch
from detectron2.modeling.meta_arch import dense_detector
from torch import Tensor, nn

from ..detectors.stock.base import StockDetector


class StockGraph(nn.Module):
    """A Faster or Cascade R-CNN, RetinaNet or FCOS of Detectron2 as a function of one image.

    Args:
        detector: the wrapped model, in evaluation mode.
    """

    def __init__(self, detector: StockDetector) -> None:
        super().__init__()
        self.stock = detector.stock
        self.takes_bgr = detector.takes_bgr

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Detections of one image, of any size.

        Args:
            image: (3, H, W) RGB values, 0 to 255, floating-point.

        Returns:
            (D, 4) boxes ``xyxy`` in pixels, (D,) scores in [0, 1], descending, and (D,) int64
            classes; D is the number of detections that are left after non-maximum suppression.
        """
        image = image.flip(0) if self.takes_bgr else image
        with mock.patch.object(dense_detector, "min", _traceable_min, create=True):
            found = self.stock([{"image": image}])[0]["instances"]
        return found.pred_boxes.tensor, found.scores, found.pred_classes


def _traceable_min(*values: Any) -> Any:
    """Python's ``min``, which a trace keeps too.

    RetinaNet and FCOS take ``min(1000, candidates)`` of each level. Python's would leave out of the
    trace whichever the traced image has less of: the limit, or the number of candidates.
    """
    if torch.jit.is_tracing() and any(isinstance(value, Tensor) for value in values):
        return torch.stack([torch.as_tensor(value) for value in values]).amin()
    return builtins.min(*values)
