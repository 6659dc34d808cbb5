"""Multi-scale deformable attention (Zhu et al., Deformable DETR).

Shape letters: B images, N queries, S tokens, H heads, M levels, P points, C embedding width, D
channels per head.
"""

import math

import torch
from torch import Tensor, nn

from .sampling import Shapes, sample_values
from .traceable import level_size


class DeformableAttention(nn.Module):
    """Attention of each query to a few learned sampling points around its reference, on every
    level.

    It is the base class of the encoder's and the decoder's attention, which differ in their
    references and values.

    Args:
        embed_dim, num_heads, num_levels: C, H, M.
        num_sampling_points: P, per head and level.

    Raises:
        ValueError: ``embed_dim`` is not a multiple of ``num_heads``.
    """

    def __init__(
        self, *, embed_dim: int, num_heads: int, num_levels: int, num_sampling_points: int
    ) -> None:
        super().__init__()
        if embed_dim % num_heads:
            raise ValueError(f"embed_dim {embed_dim} is not a multiple of num_heads {num_heads}.")
        self.num_heads, self.num_levels = num_heads, num_levels
        self.num_sampling_points = num_sampling_points
        samples = num_heads * num_levels * num_sampling_points
        self.sampling_offsets = nn.Linear(embed_dim, samples * 2)
        self.attention_weights = nn.Linear(embed_dim, samples)
        self.value_proj = nn.Linear(embed_dim, embed_dim)
        self.output_proj = nn.Linear(embed_dim, embed_dim)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initial values: each head samples in another direction, where point p, counted from 1, is
        p cells away.
        """
        nn.init.zeros_(self.sampling_offsets.weight)
        angle = torch.arange(self.num_heads) * (2 * math.pi / self.num_heads)
        direction = torch.stack([angle.cos(), angle.sin()], dim=-1)
        direction = direction / direction.abs().amax(-1, keepdim=True)
        distance = torch.arange(1, self.num_sampling_points + 1).view(1, 1, -1, 1)
        bias = direction.view(self.num_heads, 1, 1, 2) * distance
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(bias.expand(-1, self.num_levels, -1, -1).flatten())
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)
        for projection in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(projection.weight)
            nn.init.zeros_(projection.bias)

    def project(self, tokens: Tensor, padding: Tensor) -> Tensor:
        """Values of the tokens, (B, S, C) to (B, S, H, D); those of padded tokens are 0."""
        values = self.value_proj(tokens).masked_fill(padding[..., None], 0.0)
        return values.unflatten(-1, (self.num_heads, -1))

    def attend(self, queries: Tensor, references: Tensor, values: Tensor, shapes: Shapes) -> Tensor:
        """Sample the values of :meth:`project` around the references: (B, N, C), no residual.

        Args:
            queries: (B, N, C), from which sampling offsets and attention weights are predicted.
            references: (B, N, M, 2) points or (B, N, M, 4) ``cxcywh`` boxes, as fractions of each
                level's padded map.
            values: (B, S, H, D).
            shapes: (height, width) of the levels.
        """
        samples = (self.num_levels, self.num_sampling_points)
        offsets = self.sampling_offsets(queries).float()
        offsets = offsets.unflatten(-1, (self.num_heads, *samples, 2))
        weights = self.attention_weights(queries).unflatten(-1, (self.num_heads, -1))
        weights = weights.softmax(-1).unflatten(-1, samples)
        centre = references[:, :, None, :, None, :2].float()
        if references.shape[-1] == 2:
            sizes = torch.stack([level_size(h, w, offsets.device) for h, w in shapes])
            locations = centre + offsets / sizes[:, None]
        else:
            extent = references[:, :, None, :, None, 2:].float()
            locations = centre + offsets / self.num_sampling_points * extent * 0.5
        return self.output_proj(sample_values(values, shapes, locations, weights))
