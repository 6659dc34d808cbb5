"""The memory of a detection transformer: the encoded tokens of a batch of images and their layout.

Shape letters: B images, M feature levels, S tokens (all cells of all levels, fine to coarse, each
level row by row), C embedding width.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...transfer import rows
from ..batch import CachingMemory, level_maps
from .traceable import level_size


@dataclass(frozen=True)
class Memory(CachingMemory):
    """The encoded images of a batch.

    Attributes:
        tokens: (B, S, C).
        position: (B, S, C) positional embedding of the tokens, without the level embedding.
        padding: (B, S) bool, True where a cell lies outside its image.
        shapes: (H, W) of every level.
        valid_ratios: (B, M, 2), the part of each level's width and height that lies inside the
            image, in (0, 1].
        image_sizes: (h, w) in pixels of every unpadded network input.
        neck: (B, C, H, W) of every level, the maps that entered the encoder; empty where they are
            not kept.
    """

    tokens: Tensor
    position: Tensor
    padding: Tensor
    shapes: tuple[tuple[int, int], ...]
    valid_ratios: Tensor
    image_sizes: tuple[tuple[int, int], ...] = ()
    neck: tuple[Tensor, ...] = ()

    def __len__(self) -> int:
        return len(self.tokens)

    def maps(self) -> dict[str, Sequence[Tensor]]:
        """The maps of every level, (B, C, H, W): "neck", where it is kept, and "encoder"."""
        encoded = level_maps(self.tokens, self.shapes)
        return {"neck": self.neck, "encoder": encoded} if self.neck else {"encoder": encoded}

    def _select(self, images: list[int]) -> "Memory":
        return replace(
            self,
            tokens=rows(self.tokens, images),
            position=rows(self.position, images),
            padding=rows(self.padding, images),
            valid_ratios=rows(self.valid_ratios, images),
            image_sizes=tuple(self.image_sizes[i] for i in images) if self.image_sizes else (),
            neck=tuple(rows(level, images) for level in self.neck),
            _cache={},
        )


@dataclass(frozen=True)
class FeatureLevels:
    """Feature maps of a batch at the model's width, before the encoder.

    Attributes:
        features: (B, C, H, W) for every level, fine to coarse.
        paddings: (B, H, W) bool for every level, True outside the image.
    """

    features: Sequence[Tensor]
    paddings: Sequence[Tensor]

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """(H, W) of every level."""
        return tuple((f.shape[-2], f.shape[-1]) for f in self.features)

    def flatten(self) -> tuple[Tensor, Tensor]:
        """Tokens (B, S, C) and their padding (B, S)."""
        tokens = torch.cat([f.flatten(2).transpose(1, 2) for f in self.features], dim=1)
        return tokens, torch.cat([p.flatten(1) for p in self.paddings], dim=1)

    def valid_ratios(self) -> Tensor:
        """(B, M, 2): the part of each level's width and height that lies inside the image."""
        return torch.stack(
            [valid_extent(p) / level_size(*p.shape[1:], p.device) for p in self.paddings], dim=1
        )


def valid_extent(padding: Tensor) -> Tensor:
    """(B, H, W) padding to the columns and rows that lie inside each image, (B, 2) float32."""
    inside = ~padding
    return torch.stack([inside[:, 0].sum(1), inside[:, :, 0].sum(1)], dim=-1).float()


def cell_grid(height: int, width: int, device: torch.device) -> Tensor:
    """The centres of a level's cells, row by row: (H * W, 2) x, y in cells."""
    y, x = torch.meshgrid(
        torch.arange(height, device=device) + 0.5,
        torch.arange(width, device=device) + 0.5,
        indexing="ij",
    )
    return torch.stack([x.flatten(), y.flatten()], dim=-1)


def pad_together(levels: Sequence[FeatureLevels], order: Sequence[Sequence[int]]) -> FeatureLevels:
    """One padded batch made from several batches, each with images of one size. Smaller images get
    zeros to the right and below, which are marked as padding.

    Args:
        levels: the batches.
        order: for every batch, the index that each of its images gets in the padded batch.
    """
    if len(levels) == 1 and list(order[0]) == sorted(order[0]):
        return levels[0]
    total = sum(len(indices) for indices in order)
    features, paddings = [], []
    for level in range(len(levels[0].features)):
        maps = [part.features[level] for part in levels]
        height, width = (max(m.shape[d] for m in maps) for d in (-2, -1))
        feature = maps[0].new_zeros(total, maps[0].shape[1], height, width)
        padding = torch.ones(total, height, width, dtype=torch.bool, device=feature.device)
        for part, indices, values in zip(levels, order, maps, strict=True):
            h, w = values.shape[-2:]
            for i, one, outside in zip(indices, values, part.paddings[level], strict=True):
                feature[i, :, :h, :w] = one
                padding[i, :h, :w] = outside
        features.append(feature)
        paddings.append(padding)
    return FeatureLevels(features, paddings)
