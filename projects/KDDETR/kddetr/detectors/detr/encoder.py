"""The transformer encoder, with dense attention and a position that is scaled by the content
(DAB-DETR), or with multi-scale deformable attention (Deformable DETR, DINO).

Shape letters: B images, M levels, S tokens, C embedding width.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .attention import SelfAttention
from .checkpointing import run_layer
from .deformable_attention import DeformableAttention
from .heads import MLP, FeedForward
from .memory import FeatureLevels, Memory, cell_grid
from .traceable import level_size


@dataclass(frozen=True)
class TokenGeometry:
    """Positions and layout of the tokens that enter an encoder layer.

    Attributes:
        position: (B, S, C) positional embedding, which the layer adds to its queries.
        padding, shapes: see :class:`Memory`.
        references: (B, S, M, 2), see :func:`cell_centres`.
    """

    position: Tensor
    padding: Tensor
    shapes: Sequence[tuple[int, int]]
    references: Tensor


class EncoderLayer(nn.Module):
    """Self-attention and a feed-forward network, each with dropout, residual and norm."""

    def __init__(
        self,
        *,
        attention: nn.Module,
        feed_forward: FeedForward,
        embed_dim: int,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.attention = attention
        self.feed_forward = feed_forward
        self.attention_norm = nn.LayerNorm(embed_dim)
        self.feed_forward_norm = nn.LayerNorm(embed_dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, geometry: TokenGeometry) -> Tensor:
        """(B, S, C) to (B, S, C)."""
        x = self.attention_norm(x + self.dropout(self.attention(x, geometry)))
        return self.feed_forward_norm(x + self.dropout(self.feed_forward(x)))


class DenseTokenAttention(SelfAttention):
    """Attention of every token to all tokens that are not padding."""

    def forward(self, x: Tensor, geometry: TokenGeometry) -> Tensor:
        """(B, S, C) to (B, S, C), without the residual."""
        return self.attend(x, geometry.position, key_padding_mask=geometry.padding)


class DeformableTokenAttention(DeformableAttention):
    """Attention of every token to a few sampling points around its own cell, on every level."""

    def forward(self, x: Tensor, geometry: TokenGeometry) -> Tensor:
        """(B, S, C) to (B, S, C), without the residual."""
        values = self.project(x, geometry.padding)
        return self.attend(x + geometry.position, geometry.references, values, geometry.shapes)


class Encoder(nn.Module):
    """Encoder layers, which turn feature levels into a :class:`Memory`.

    Args:
        layers: in order.
        position_embedding: maps the padding (B, H, W) of a level to (B, H, W, C).
        embed_dim: C.
        scale_position: multiply the positional embedding by a factor that one network for all
            layers predicts from the tokens (DAB-DETR).
        num_levels: M, where each level has a learned embedding (Deformable DETR, DINO); 0: no
            level embedding.
        checkpoint_activations: recompute the layers in the backward pass, see :func:`run_layer`.
    """

    def __init__(
        self,
        *,
        layers: Sequence[EncoderLayer],
        position_embedding: Callable[[Tensor], Tensor],
        embed_dim: int,
        scale_position: bool = False,
        num_levels: int = 0,
        checkpoint_activations: bool = False,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.position_embedding = position_embedding
        scale = MLP(embed_dim, embed_dim, embed_dim, layers=2) if scale_position else None
        self.position_scale = scale
        self.checkpoint_activations = checkpoint_activations
        self.level_embedding = (
            nn.Parameter(torch.randn(num_levels, embed_dim)) if num_levels else None
        )

    def forward(self, levels: FeatureLevels, image_sizes: Sequence[tuple[int, int]] = ()) -> Memory:
        """Encode a batch of images, of which the memory keeps the unpadded sizes (h, w)."""
        x, padding = levels.flatten()
        position = torch.cat(
            [self.position_embedding(p).flatten(1, 2) for p in levels.paddings], dim=1
        ).to(x.dtype)
        valid_ratios = levels.valid_ratios()
        references = cell_centres(levels.shapes, valid_ratios)
        added = position
        if self.level_embedding is not None:
            each = zip(self.level_embedding, levels.shapes, strict=True)
            added = position + torch.cat([e.expand(h * w, -1) for e, (h, w) in each])
        for layer in self.layers:
            scaled = added if self.position_scale is None else added * self.position_scale(x)
            geometry = TokenGeometry(scaled, padding, levels.shapes, references)
            x = run_layer(layer, x, geometry, recompute=self.checkpoint_activations)
        return Memory(
            tokens=x,
            position=position,
            padding=padding,
            shapes=levels.shapes,
            valid_ratios=valid_ratios,
            image_sizes=tuple(image_sizes),
            neck=tuple(levels.features),
        )


def cell_centres(shapes: Sequence[tuple[int, int]], valid_ratios: Tensor) -> Tensor:
    """The centre of every cell in the coordinates of every level: (B, S, M, 2) x, y as fractions of
    the level's padded map, which can be above 1 for padding.

    The levels are padded by different parts of their size, so the same place in the image has
    different coordinates on them.
    """
    centres = []
    for level, (height, width) in enumerate(shapes):
        size = level_size(height, width, valid_ratios.device)
        centres.append(
            cell_grid(height, width, size.device) / (valid_ratios[:, None, level] * size)
        )
    return torch.cat(centres, dim=1)[:, :, None] * valid_ratios[:, None]
