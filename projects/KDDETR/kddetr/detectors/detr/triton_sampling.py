"""Bilinear sampling of the feature levels as two Triton kernels, for GPUs without a CUDA compiler.

A program samples a block of queries for one image and one head. It adds up in float32 and reads the
values in their own type, so bfloat16 values are half the traffic and lose nothing. The gradient of
the values is added up by atomic operations, whose order differs from run to run, as in the kernels
of Deformable DETR; those of the locations and weights are written once.

Shape letters: B images, N queries, S tokens, H heads, M levels, P points, D channels per head.
"""

import itertools
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ...transfer import numbers

TILE = 1024  # numbers that a program holds of a corner: queries times channels


@triton.jit
def _corner(x, y, corner: tl.constexpr, height, width):
    """Place of one of the four cells around a point, its two bilinear weights, and whether it is on
    the map.
    """
    right: tl.constexpr = corner % 2
    below: tl.constexpr = corner // 2
    left_edge, top_edge = tl.floor(x), tl.floor(y)
    part_x, part_y = x - left_edge, y - top_edge
    # NaN has no place: it is off the map, and in the weights.
    column = tl.where(x == x, left_edge, -2.0).to(tl.int32) + right
    row = tl.where(y == y, top_edge, -2.0).to(tl.int32) + below
    weight_x = part_x if right else 1 - part_x
    weight_y = part_y if below else 1 - part_y
    on_map = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    return row * width + column, weight_x, weight_y, on_map


@triton.jit
def _pixels(locations, index, size, mask):
    """Coordinates in cells. What is far outside of the map stays outside, within an integer's
    range; NaN stays NaN.
    """
    x = tl.load(locations + index, mask=mask, other=0.0).to(tl.float32) * size - 0.5
    x = tl.maximum(x, -2.0, propagate_nan=tl.PropagateNan.ALL)
    return tl.minimum(x, size + 1.0, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def _forward(
    values,
    levels,
    locations,
    weights,
    out,
    num_queries,
    num_tokens,
    num_heads,
    depth,
    num_levels: tl.constexpr,
    num_points: tl.constexpr,
    block_n: tl.constexpr,
    block_d: tl.constexpr,
):
    n = tl.program_id(0) * block_n + tl.arange(0, block_n)
    image, head = (tl.program_id(1) // num_heads).to(tl.int64), tl.program_id(1) % num_heads
    d = tl.arange(0, block_d)
    is_query, is_channel = n < num_queries, d < depth
    row = (image * num_queries + n) * num_heads + head
    total = tl.zeros([block_n, block_d], dtype=tl.float32)
    for level in range(num_levels):
        height, width = tl.load(levels + 3 * level), tl.load(levels + 3 * level + 1)
        start = image * num_tokens + tl.load(levels + 3 * level + 2)
        for point in range(num_points):
            i = (row * num_levels + level) * num_points + point
            x = _pixels(locations, 2 * i, width, is_query)
            y = _pixels(locations, 2 * i + 1, height, is_query)
            weight = tl.load(weights + i, mask=is_query, other=0.0).to(tl.float32)
            for corner in tl.static_range(4):
                cell, weight_x, weight_y, on_map = _corner(x, y, corner, height, width)
                at = ((start + cell) * num_heads + head) * depth
                mask = (on_map & is_query)[:, None] & is_channel[None, :]
                value = tl.load(values + at[:, None] + d[None, :], mask=mask, other=0.0)
                total += (weight * weight_x * weight_y)[:, None] * value.to(tl.float32)
    mask = is_query[:, None] & is_channel[None, :]
    tl.store(out + row[:, None] * depth + d[None, :], total, mask=mask)


@triton.jit
def _backward(
    values,
    levels,
    locations,
    weights,
    grad_out,
    grad_values,
    grad_locations,
    grad_weights,
    num_queries,
    num_tokens,
    num_heads,
    depth,
    num_levels: tl.constexpr,
    num_points: tl.constexpr,
    block_n: tl.constexpr,
    block_d: tl.constexpr,
    with_values: tl.constexpr,
):
    n = tl.program_id(0) * block_n + tl.arange(0, block_n)
    image, head = (tl.program_id(1) // num_heads).to(tl.int64), tl.program_id(1) % num_heads
    d = tl.arange(0, block_d)
    is_query, is_channel = n < num_queries, d < depth
    row = (image * num_queries + n) * num_heads + head
    mask = is_query[:, None] & is_channel[None, :]
    grad = tl.load(grad_out + row[:, None] * depth + d[None, :], mask=mask, other=0.0)
    grad = grad.to(tl.float32)
    for level in range(num_levels):
        height, width = tl.load(levels + 3 * level), tl.load(levels + 3 * level + 1)
        start = image * num_tokens + tl.load(levels + 3 * level + 2)
        for point in range(num_points):
            i = (row * num_levels + level) * num_points + point
            x = _pixels(locations, 2 * i, width, is_query)
            y = _pixels(locations, 2 * i + 1, height, is_query)
            weight = tl.load(weights + i, mask=is_query, other=0.0).to(tl.float32)
            sampled = tl.zeros([block_n], dtype=tl.float32)  # times the gradient of the output
            along_x = tl.zeros([block_n], dtype=tl.float32)
            along_y = tl.zeros([block_n], dtype=tl.float32)
            for corner in tl.static_range(4):
                cell, weight_x, weight_y, on_map = _corner(x, y, corner, height, width)
                at = ((start + cell) * num_heads + head) * depth
                mask = (on_map & is_query)[:, None] & is_channel[None, :]
                value = tl.load(values + at[:, None] + d[None, :], mask=mask, other=0.0)
                product = tl.sum(grad * value.to(tl.float32), axis=1)
                sampled += weight_x * weight_y * product
                along_x += (weight_y if corner % 2 else -weight_y) * product
                along_y += (weight_x if corner // 2 else -weight_x) * product
                if with_values:
                    share = (weight * weight_x * weight_y)[:, None] * grad
                    tl.atomic_add(grad_values + at[:, None] + d[None, :], share, mask=mask)
            tl.store(grad_weights + i, sampled, mask=is_query)
            tl.store(grad_locations + 2 * i, weight * width * along_x, mask=is_query)
            tl.store(grad_locations + 2 * i + 1, weight * height * along_y, mask=is_query)


class TritonSampling(torch.autograd.Function):
    """:func:`~.sampling.sample_values`; ``levels`` is what :func:`level_table` gives."""

    @staticmethod
    def forward(
        ctx: Any, values: Tensor, levels: Tensor, locations: Tensor, weights: Tensor
    ) -> Tensor:
        """(B, N, H * D) in float32."""
        values, locations, weights = (t.contiguous() for t in (values, locations, weights))
        ctx.save_for_backward(values, levels, locations, weights)
        batch, queries, heads = locations.shape[:3]
        out = values.new_empty(batch, queries, heads * values.shape[-1], dtype=torch.float32)
        _launch(_forward, values, locations, values, levels, locations, weights, out)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, Tensor, Tensor]:
        """Gradients of values, locations and weights, each in the type that it belongs to."""
        values, levels, locations, weights = ctx.saved_tensors
        with_values = ctx.needs_input_grad[0]
        # One float32 sum for each value, whatever the type of the values.
        of_values = torch.zeros_like(values, dtype=torch.float32) if with_values else values
        of_locations, of_weights = torch.empty_like(locations), torch.empty_like(weights)
        tensors = (values, levels, locations, weights, grad.contiguous())
        found = (of_values, of_locations, of_weights)
        _launch(_backward, values, locations, *tensors, *found, with_values=with_values)
        return of_values.to(values.dtype) if with_values else None, None, of_locations, of_weights


def level_table(shapes: Any, device: torch.device) -> Tensor:
    """(M, 3) int32: height, width and first token of every level."""
    first = [0, *itertools.accumulate(height * width for height, width in shapes)]
    table = [(h, w, start) for (h, w), start in zip(shapes, first, strict=False)]
    return numbers(table, device, torch.int32)


def is_interpreted() -> bool:
    """Whether the kernels run in Triton's interpreter, on the CPU: TRITON_INTERPRET=1 was set
    before Triton was imported.
    """
    return not isinstance(_forward, triton.JITFunction)


def _launch(kernel: Any, values: Tensor, locations: Tensor, *tensors: Tensor, **flags: Any) -> None:
    batch, num_tokens, num_heads, depth = values.shape
    num_queries, num_levels, num_points = locations.shape[1], *locations.shape[3:5]
    block_d = triton.next_power_of_2(depth)
    block_n = max(1, TILE // block_d)
    kernel[(triton.cdiv(num_queries, block_n), batch * num_heads)](
        *tensors,
        num_queries,
        num_tokens,
        num_heads,
        depth,
        num_levels=num_levels,
        num_points=num_points,
        block_n=block_n,
        block_d=block_d,
        **flags,
    )
