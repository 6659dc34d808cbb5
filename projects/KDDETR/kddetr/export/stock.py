"""A model of Detectron2 as a function of tensors, for torch.jit.trace."""

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
        found = self.stock([{"image": image}])[0]["instances"]
        return found.pred_boxes.tensor, found.scores, found.pred_classes
