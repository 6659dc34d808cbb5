"""How an image becomes the input of a real-time detector: resized to one size, without padding.

The original code stretches every image to a square, and so do the image processors of the package
``transformers``; boxes in [0, 1] of the image are the same before and after.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from ...transfer import to_device
from ..inputs import check_inputs


def check_size(name: str, size: Sequence[int], stride: int) -> None:
    """Raise a ValueError where height or width is no multiple of the coarsest stride."""
    if any(isinstance(side, bool) or not isinstance(side, int) or side < 1 for side in size):
        raise ValueError(f"{name} must be whole numbers of pixels, not {list(size)}.")
    if any(side % stride for side in size):
        raise ValueError(
            f"{name} must be multiples of {stride}, the coarsest stride, not {list(size)}."
        )


def resized(image: Tensor, size: tuple[int, int]) -> Tensor:
    """A (3, H, W) image resized to (height, width), as the package's image processors do it."""
    if tuple(image.shape[-2:]) == size:
        return image
    return F.resize(image, list(size), F.InterpolationMode.BILINEAR, antialias=True)


def batch_of(inputs: list[dict], size: tuple[int, int], device: torch.device) -> Tensor:
    """(B, 3, height, width) float32 RGB values of the images of a batch, 0 to 255.

    Raises:
        UsageError: the batch is none, see :mod:`kddetr.detectors.inputs`.
    """
    check_inputs(inputs)
    images = [resized(to_device(x["image"], device), size).float() for x in inputs]
    return torch.stack(images)
