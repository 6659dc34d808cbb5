"""The graph of an exported real-time detector: resized images in, ready detections out.

Shape letters: B images, D detections of an image.
"""

import os
from unittest import mock

import torch
from torch import Tensor, nn
from torch.export import Dim

from ..detectors.detr.postprocess import best_pairs
from ..detectors.hf.detector import HuggingFaceDetector
from ..predictions import LAST
from .graph import OUTPUTS

# The package checks shapes by tensors, for which ONNX has no operator; this is how it leaves it.
_UNCHECKED = {"TRANSFORMERS_DISABLE_TORCH_CHECK": "1"}


class SquareGraph(nn.Module):
    """A detector of the RT-DETR line as a function of tensors, for images of its one size.

    Args:
        detector: in evaluation mode.
    """

    outputs = OUTPUTS

    def __init__(self, detector: HuggingFaceDetector) -> None:
        super().__init__()
        self.detector = detector

    def dynamic_shapes(self) -> tuple[dict, ...]:
        """The axes of the inputs that may differ from call to call: the number of images."""
        return {0: Dim.DYNAMIC}, {0: Dim.DYNAMIC}

    def forward(self, images: Tensor, sizes: Tensor) -> tuple[Tensor, ...]:
        """Detections of a batch of images that have been resized to the detector's size.

        Args:
            images: (B, 3, H, W) RGB values, 0 to 255, floating-point.
            sizes: (B, 2) int64 height and width in pixels of the images before they were resized.

        Returns:
            (B, D, 4) boxes ``xyxy`` in pixels of each image before it was resized, clipped to it;
            (B, D) scores in [0, 1], descending; (B, D) int64 classes, counted from 0.
        """
        detector = self.detector
        with mock.patch.dict(os.environ, _UNCHECKED):
            memory = detector.encode_images(images)
            last = detector.decode(memory, detector.queries(memory), layers=LAST)
        boxes, scores, classes = best_pairs(last.logits[0], last.boxes[0], detector.num_detections)
        scale = sizes.flip(-1).repeat(1, 2)[:, None].to(boxes.dtype)  # width, height, width, height
        return torch.minimum((boxes * scale).clamp(min=0.0), scale), scores, classes
