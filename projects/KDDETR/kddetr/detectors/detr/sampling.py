"""Bilinear sampling of the feature levels: what deformable attention computes at its points.

Several implementations give the same numbers. :func:`sample_values` takes the kernel of the library
torch-ms-deform-attn where that is installed (about four times as fast on a CPU), on a GPU otherwise
Triton's, which needs no compiler, and else plain PyTorch; :func:`sampled_by` chooses one by its
name.

Shape letters: B images, N queries, S tokens, H heads, M levels, P points, D channels per head.
"""

import functools
import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import UsageError
from ...ranges import one_of
from ...transfer import numbers
from .gather_sampling import sample_by_gather

_log = logging.getLogger(__name__)

Shapes = Sequence[tuple[int, int]]
Sampling = Callable[[Tensor, Shapes, Tensor, Tensor], Tensor]

_chosen: str | None = None  # the name that sampled_by was given


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
    empty = 0 in (*values.shape, *locations.shape)  # the kernels do not accept it
    name = "grid_sample" if empty else _chosen or _fastest(values.device.type)
    locations, weights = _at_least_float32(locations), _at_least_float32(weights)
    if name not in READS_HALF:
        values = _at_least_float32(values)
    with torch.autocast(values.device.type, enabled=False):
        return IMPLEMENTATIONS[name](values, shapes, locations, weights)


@contextmanager
def sampled_by(name: str) -> Iterator[None]:
    """Inside, :func:`sample_values` is the implementation with this name.

    Raises:
        ValueError: there is none with this name.
    """
    global _chosen
    one_of(IMPLEMENTATIONS, name=name)
    before, _chosen = _chosen, name
    try:
        yield
    finally:
        _chosen = before


def sample_by_grid_sample(
    values: Tensor, shapes: Shapes, locations: Tensor, weights: Tensor
) -> Tensor:
    """:func:`sample_values` by PyTorch's ``grid_sample``, for every device."""
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


def sample_by_library(values: Tensor, shapes: Shapes, locations: Tensor, weights: Tensor) -> Tensor:
    """:func:`sample_values` by the kernel of torch-ms-deform-attn."""
    from torch_ms_deform_attn import ms_deform_attn

    first = [0, *itertools.accumulate(height * width for height, width in shapes)][:-1]
    sizes, starts = (numbers(x, values.device, torch.int64) for x in (list(shapes), first))
    return ms_deform_attn(
        values.contiguous(), sizes, starts, locations.contiguous(), weights.contiguous()
    )


def sample_by_triton(values: Tensor, shapes: Shapes, locations: Tensor, weights: Tensor) -> Tensor:
    """:func:`sample_values` by Triton's kernels, on a GPU, see :mod:`.triton_sampling`. They add up
    in float32, so values in float64 are left to :func:`sample_by_grid_sample`.

    Raises:
        UsageError: the tensors are on a CPU and Triton does not interpret its kernels.
    """
    from .triton_sampling import TritonSampling, is_interpreted, level_table

    if values.dtype is torch.float64:
        return sample_by_grid_sample(values, shapes, locations, weights)
    if values.device.type == "cpu" and not is_interpreted():
        raise UsageError(
            "Triton's kernels need a GPU: take another implementation, or set TRITON_INTERPRET=1"
            " before Python starts, to test them slowly on a CPU."
        )
    return TritonSampling.apply(values, level_table(shapes, values.device), locations, weights)


def _at_least_float32(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


IMPLEMENTATIONS: dict[str, Sampling] = {
    "gather": sample_by_gather,
    "grid_sample": sample_by_grid_sample,
    "library": sample_by_library,
    "triton": sample_by_triton,
}
DESCRIBED = {"library": "torch-ms-deform-attn", "triton": "a Triton kernel"}
READS_HALF = ("triton",)  # the values in float16 and bfloat16 as they are


@functools.cache
def _fastest(device_type: str) -> str:
    """The name of the implementation for a type of device; logs which one is used."""
    reasons = []
    for name in ("library",) if device_type == "cpu" else ("library", "triton"):
        try:
            # A library that was built without CUDA can be imported, and Triton without a driver for
            # the device; only a call shows the difference.
            one = torch.ones(1, 1, 1, 1, device=device_type)
            centre = torch.full((1, 1, 1, 1, 1, 2), 0.5, device=device_type)
            IMPLEMENTATIONS[name](one, [(1, 1)], centre, centre[..., 0])
        except Exception as error:  # Triton has errors of many kinds
            reasons.append(f"{name}: {error}")
        else:
            _log.info("Deformable attention on %s: %s.", device_type, DESCRIBED[name])
            return name
    _log.info("Deformable attention on %s: plain PyTorch (%s).", device_type, "; ".join(reasons))
    return "grid_sample"
