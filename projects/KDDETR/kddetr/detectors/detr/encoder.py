"""Transformer encoders: dense attention with a content-scaled position (DAB-DETR), and multi-scale
deformable attention (Deformable DETR, DINO).

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
from .memory import FeatureLevels, Memory


@dataclass(frozen=True)
class Tokens:
    """What every encoder layer needs to know beside the tokens themselves.

    Attributes:
        position: (B, S, C), what a layer adds to its queries.
        padding: (B, S) bool.
        shapes: (H, W) of the levels.
        references: (B, S, M, 2) centre of each token's cell, on every level's padded map.
    """

    position: Tensor
    padding: Tensor
    shapes: Sequence[tuple[int, int]]
    references: Tensor


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward, each with a residual and a norm behind it."""

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

    def forward(self, x: Tensor, tokens: Tokens) -> Tensor:
        """(B, S, C) to (B, S, C)."""
        x = self.attention_norm(x + self.dropout(self.attention(x, tokens)))
        return self.feed_forward_norm(x + self.dropout(self.feed_forward(x)))


class DenseTokenAttention(SelfAttention):
    """Every token attends to every valid token."""

    def forward(self, x: Tensor, tokens: Tokens) -> Tensor:
        """(B, S, C) to (B, S, C), without the residual."""
        return self.attend(x, tokens.position, key_padding_mask=tokens.padding)


class DeformableTokenAttention(DeformableAttention):
    """Every token looks at a few places around its own cell, on every level."""

    def forward(self, x: Tensor, tokens: Tokens) -> Tensor:
        """(B, S, C) to (B, S, C), without the residual."""
        values = self.project(x, tokens.padding)
        return self.attend(x + tokens.position, tokens.references, values, tokens.shapes)


class Encoder(nn.Module):
    """Feature levels to :class:`Memory`.

    Args:
        layers: :class:`EncoderLayer`.
        position_embedding: (B, H, W) padding to (B, H, W, C).
        position_scale: predicts from the content how much of the position each layer adds, shared
            by the layers (DAB-DETR); None: all of it.
        levels: M, when each level has a learned embedding (Deformable DETR); 0: none.
        embed_dim: C.
        checkpoint_activations: recompute the layers in the backward pass, see :func:`run_layer`.
    """

    def __init__(
        self,
        *,
        layers: Sequence[EncoderLayer],
        position_embedding: Callable[[Tensor], Tensor],
        embed_dim: int,
        position_scale: MLP | None = None,
        levels: int = 0,
        checkpoint_activations: bool = False,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.position_embedding = position_embedding
        self.position_scale = position_scale
        self.checkpoint_activations = checkpoint_activations
        self.level_embedding = nn.Parameter(torch.randn(levels, embed_dim)) if levels else None

    def forward(self, levels: FeatureLevels, image_sizes: Sequence[tuple[int, int]] = ()) -> Memory:
        """Encode; ``image_sizes`` (h, w) in pixels go into the memory unchanged."""
        x, padding = levels.flatten()
        position = torch.cat(
            [self.position_embedding(p).flatten(1, 2) for p in levels.paddings], dim=1
        ).to(x.dtype)
        valid_ratios = levels.valid_ratios()
        references = cell_centres(levels.shapes, valid_ratios)
        added = position
        if self.level_embedding is not None:
            sizes = torch.tensor([h * w for h, w in levels.shapes], device=x.device)
            added = position + self.level_embedding.repeat_interleave(sizes, dim=0)
        for layer in self.layers:
            scaled = added if self.position_scale is None else added * self.position_scale(x)
            tokens = Tokens(scaled, padding, levels.shapes, references)
            x = run_layer(layer, x, tokens, recompute=self.checkpoint_activations)
        return Memory(
            tokens=x,
            position=position,
            padding=padding,
            shapes=levels.shapes,
            valid_ratios=valid_ratios,
            image_sizes=tuple(image_sizes),
        )


def cell_centres(shapes: Sequence[tuple[int, int]], valid_ratios: Tensor) -> Tensor:
    """Centre of every cell as seen on every level.

    Args:
        shapes: (H, W) of the M levels.
        valid_ratios: (B, M, 2).

    Returns:
        (B, S, M, 2) x, y in units of each level's padded map; above 1 is possible on padding.
    """
    centres = []
    for level, (height, width) in enumerate(shapes):
        y, x = torch.meshgrid(
            torch.arange(height, device=valid_ratios.device) + 0.5,
            torch.arange(width, device=valid_ratios.device) + 0.5,
            indexing="ij",
        )
        size = valid_ratios[:, None, level] * valid_ratios.new_tensor([width, height])
        centres.append(torch.stack([x.flatten(), y.flatten()], dim=-1)[None] / size)
    return torch.cat(centres, dim=1)[:, :, None] * valid_ratios[:, None]
