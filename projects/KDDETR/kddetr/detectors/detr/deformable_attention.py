"""Multi-scale deformable attention (Zhu et al., Deformable DETR).

The sampling is plain PyTorch, or a kernel of the library torch-ms-deform-attn where that is
installed (about four times as fast on a CPU). :func:`sample_values` chooses.

Shape letters: B images, N queries, S tokens, H heads, M levels, P points, D channels per head.
"""

import functools
import logging
import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_log = logging.getLogger(__name__)

Shapes = Sequence[tuple[int, int]]


def sample_values(values: Tensor, shapes: Shapes, locations: Tensor, weights: Tensor) -> Tensor:
    """The weighted sum of bilinear samples from every level.

    Args:
        values: (B, S, H, D).
        shapes: (height, width) of the M levels, whose cells are the S tokens in order.
        locations: (B, N, H, M, P, 2) x, y as fractions of each level's padded map; samples outside
            the map are 0.
        weights: (B, N, H, M, P) attention weights.

    Returns:
        (B, N, H * D), in float32 where the inputs have a lower precision.
    """
    values, locations, weights = (
        t.float() if t.dtype in (torch.float16, torch.bfloat16) else t
        for t in (values, locations, weights)
    )
    kernel = _kernel(values.device.type)
    with torch.autocast(values.device.type, enabled=False):
        if kernel is None or 0 in (*values.shape, *locations.shape):
            return sample_values_torch(values, shapes, locations, weights)
        sizes = torch.tensor(list(shapes), dtype=torch.int64, device=values.device)
        starts = F.pad(sizes.prod(1).cumsum(0)[:-1], (1, 0))
        return kernel(
            values.contiguous(), sizes, starts, locations.contiguous(), weights.contiguous()
        )


def sample_values_torch(
    values: Tensor, shapes: Shapes, locations: Tensor, weights: Tensor
) -> Tensor:
    """:func:`sample_values` by ``grid_sample``, for every device."""
    batch, _, num_heads, depth = values.shape
    num_queries = locations.shape[1]
    grids = (2 * locations - 1).transpose(1, 2).flatten(0, 1)  # (B * H, N, M, P, 2)
    sampled = []
    for level, (height, width) in enumerate(shapes):
        start = sum(h * w for h, w in shapes[:level])
        maps = values[:, start : start + height * width].permute(0, 2, 3, 1)
        maps = maps.reshape(batch * num_heads, depth, height, width)
        sampled.append(
            F.grid_sample(maps, grids[:, :, level], padding_mode="zeros", align_corners=False)
        )
    weights = weights.transpose(1, 2).flatten(0, 1).flatten(-2)[:, None]
    out = (torch.cat(sampled, dim=-1) * weights).sum(-1)
    return out.view(batch, num_heads * depth, num_queries).transpose(1, 2)


@functools.cache
def _kernel(device_type: str) -> Callable[..., Tensor] | None:
    """The library's kernel for a type of device, or None; logs which implementation is used."""
    try:
        import torch_ms_deform_attn as library

        # A library that was built without CUDA can be imported; only a call shows the difference.
        one = torch.ones(1, 1, 1, 1, device=device_type)
        size = torch.ones(1, 2, dtype=torch.int64, device=device_type)
        centre = torch.full((1, 1, 1, 1, 1, 2), 0.5, device=device_type)
        library.ms_deform_attn(one, size, size[:, 0] * 0, centre, centre[..., 0])
    except (ImportError, RuntimeError) as error:
        _log.info("Deformable attention on %s: plain PyTorch (%s).", device_type, error)
        return None
    _log.info(
        "Deformable attention on %s: torch-ms-deform-attn %s.", device_type, library.__version__
    )
    return library.ms_deform_attn


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
            sizes = offsets.new_tensor([(w, h) for h, w in shapes])
            locations = centre + offsets / sizes[:, None]
        else:
            extent = references[:, :, None, :, None, 2:].float()
            locations = centre + offsets / self.num_sampling_points * extent * 0.5
        return self.output_proj(sample_values(values, shapes, locations, weights))
