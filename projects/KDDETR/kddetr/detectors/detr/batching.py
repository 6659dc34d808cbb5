"""How images of different sizes go through the backbone: by size, or padded to one batch.

Shape letters: B images, C embedding width.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .memory import FeatureLevels, pad_together

Features = Callable[[Tensor], Sequence[Tensor]]


def levels_by_size(images: Sequence[Tensor], features: Features) -> FeatureLevels:
    """The feature levels of images, where images of the same size are processed together.

    Only the resulting features are padded to one batch, so that those of an image do not depend on
    the other images of its batch.

    Args:
        images: normalised, (3, H, W) each, of any sizes.
        features: backbone and neck: maps (B, 3, H, W) to (B, C, H_i, W_i) for every level.
    """
    sizes = [tuple(image.shape[-2:]) for image in images]
    parts, order = [], []
    for size in dict.fromkeys(sizes):
        same_size = [i for i, other in enumerate(sizes) if other == size]
        maps = features(torch.stack([images[i] for i in same_size]))
        unpadded = [m.new_zeros(len(m), *m.shape[-2:], dtype=torch.bool) for m in maps]
        parts.append(FeatureLevels(maps, unpadded))
        order.append(same_size)
    return pad_together(parts, order)


def levels_of_padded(images: Sequence[Tensor], features: Features) -> FeatureLevels:
    """The feature levels of images that are padded with zeros, to the right and below, to the
    largest height and width among them, and are processed as one batch.

    DETR and its successors do this (Carion et al.; ``NestedTensor`` and ``Joiner`` in their code).
    Convolutions and group norms see the padding, so the features of an image depend a little on how
    much it was padded. For the arguments see :func:`levels_by_size`.
    """
    height, width = (max(image.shape[d] for image in images) for d in (-2, -1))
    batch = images[0].new_zeros(len(images), 3, height, width)
    padding = torch.ones(len(images), height, width, dtype=torch.bool, device=batch.device)
    for i, image in enumerate(images):
        h, w = image.shape[-2:]
        batch[i, :, :h, :w] = image
        padding[i, :h, :w] = False
    maps = features(batch)
    return FeatureLevels(maps, level_paddings(padding, maps))


def level_paddings(padding: Tensor, maps: Sequence[Tensor]) -> list[Tensor]:
    """The (B, H, W) padding of images, True outside the image, at the size of every feature map.

    As in DETR, a cell is padding where the nearest pixel of the image is, in the sense of
    ``interpolate``: the one at its top left corner.
    """
    pixels = padding[:, None].float()
    return [F.interpolate(pixels, size=m.shape[-2:])[:, 0].bool() for m in maps]


BACKBONE_BATCHING: Mapping[str, Callable[[Sequence[Tensor], Features], FeatureLevels]] = {
    "by_size": levels_by_size,
    "padded": levels_of_padded,
}
