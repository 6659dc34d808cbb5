"""Augmentations of torchvision that RT-DETR and D-FINE are trained with, for Detectron2's mappers.

What is drawn, and how colours change, is torchvision's code. The pixels and boxes are moved by
Detectron2's transforms, so that everything that follows an image follows it here too.
"""

import numpy as np
import torch
from detectron2.data import transforms as T
from torchvision import tv_tensors
from torchvision.transforms import v2

from ..ranges import fraction


class PhotometricDistort(T.Augmentation):
    """Random brightness, contrast, saturation, hue and order of the channels (of SSD).

    Args:
        p: probability of each of them.
    """

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        fraction(p=p)
        self.distort = v2.RandomPhotometricDistort(p=p)

    def get_transform(self, image: np.ndarray) -> T.Transform:
        """The transform for an (H, W, 3) image, whose colours are drawn when it is applied."""
        return T.ColorTransform(self._distorted)

    def _distorted(self, image: np.ndarray) -> np.ndarray:
        pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)
        return self.distort(pixels).permute(1, 2, 0).numpy()


class ZoomOut(T.Augmentation):
    """Places an image at random on a black canvas of up to four times its width and height (of
    SSD), so that objects become smaller.

    Args:
        p: the probability.
        largest: the largest side of the canvas in sides of the image.
    """

    def __init__(self, p: float = 0.5, largest: float = 4.0) -> None:
        super().__init__()
        fraction(p=p)
        self.p = p
        self.zoom = v2.RandomZoomOut(side_range=(1.0, largest))

    def get_transform(self, image: np.ndarray) -> T.Transform:
        """Draw the transform for an (H, W, 3) image."""
        if float(torch.rand(())) >= self.p:
            return T.NoOpTransform()
        drawn = self.zoom.make_params([_blank(image)])
        left, top, right, bottom = drawn["padding"]
        height, width = image.shape[:2]
        return T.PadTransform(left, top, right, bottom, width, height)


class IoUCrop(T.Augmentation):
    """A random crop that keeps an object in view to a random IoU (of SSD). Objects whose centre is
    outside of the crop are left out.

    An image without labels is not cropped.

    Args:
        p: the probability.
    """

    def __init__(self, p: float = 0.8) -> None:
        super().__init__()
        fraction(p=p)
        self.p = p
        self.crop = v2.RandomIoUCrop()

    def get_transform(self, image: np.ndarray, boxes: np.ndarray | None) -> T.Transform:
        """Draw the transform for an (H, W, 3) image and its (N, 4) boxes XYXY in pixels."""
        if boxes is None or float(torch.rand(())) >= self.p:
            return T.NoOpTransform()
        height, width = image.shape[:2]
        known = tv_tensors.BoundingBoxes(
            torch.from_numpy(np.asarray(boxes, dtype=np.float64)).reshape(-1, 4),
            format="XYXY",
            canvas_size=(height, width),
        )
        drawn = self.crop.make_params([_blank(image), known])
        if not drawn:
            return T.NoOpTransform()
        return CentredCrop(drawn["left"], drawn["top"], drawn["width"], drawn["height"])


class CentredCrop(T.CropTransform):
    """A crop that shrinks a box to a point where its centre is outside, so that mappers leave it
    out like any other empty box.
    """

    def apply_box(self, box: np.ndarray) -> np.ndarray:
        """(N, 4) boxes XYXY in pixels of the image to those of the crop."""
        centres = (box[:, :2] + box[:, 2:]) / 2
        low = np.array([self.x0, self.y0])
        high = low + np.array([self.w, self.h])
        inside = ((centres > low) & (centres < high)).all(axis=1)
        moved = super().apply_box(box)
        return np.where(inside[:, None], moved, 0.0)


def _blank(image: np.ndarray) -> torch.Tensor:
    """An image of the same size without its pixels, of which only the size is asked."""
    return tv_tensors.Image(torch.empty(3, *image.shape[:2], device="meta"))
