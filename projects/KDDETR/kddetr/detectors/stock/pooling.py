"""RoIAlign (He et al., ICCV 2017) as the product of a sparse matrix and the feature map, for CPUs.

RoIAlign averages bilinear samples, so its output is a linear function of the feature map: each bin
of a region is a weighted sum of a few cells. The weights are the same for all channels. The kernels
of torchvision for a CPU compute them anew for each channel in the backward pass, and take about
eight times as long as the matrix products here. On a GPU they do not, and are used.

Shape letters: B images, R regions, P bins along one axis, H x W cells, C channels, S samples of a
bin along one axis.
"""

from collections.abc import Sequence

import torch
from detectron2.layers import ROIAlign
from detectron2.modeling.poolers import (
    ROIPooler,
    assign_boxes_to_levels,
    convert_boxes_to_pooler_format,
)
from detectron2.structures import Boxes
from torch import Tensor

PRECISIONS = (torch.float32, torch.float64)  # that sparse matrix products have


def pooled(pooler: ROIPooler, maps: Sequence[Tensor], regions: list[Boxes]) -> Tensor:
    """What the pooler gives for the regions of all images, (R, C, P, P), equal up to rounding.

    Args:
        pooler: of a model of Detectron2.
        maps: (B, C, H, W) of its levels.
        regions: of each image, in pixels.
    """
    known = all(type(align) is ROIAlign for align in pooler.level_poolers)
    on_cpu = all(x.device.type == "cpu" and x.dtype in PRECISIONS for x in maps)
    if not (known and on_cpu and any(len(boxes) for boxes in regions)):
        return pooler(maps, regions)
    rows = convert_boxes_to_pooler_format(regions)
    levels = torch.zeros(len(rows), dtype=torch.int64)
    if len(maps) > 1:
        levels = assign_boxes_to_levels(
            regions,
            pooler.min_level,
            pooler.max_level,
            pooler.canonical_box_size,
            pooler.canonical_level,
        )
    order = [(levels == level).nonzero()[:, 0] for level in range(len(maps))]
    parts = [
        aligned(align, x, rows[index])
        for align, x, index in zip(pooler.level_poolers, maps, order, strict=True)
    ]
    return torch.cat(parts)[torch.cat(order).argsort()]


def aligned(align: ROIAlign, x: Tensor, rows: Tensor) -> Tensor:
    """What ``align`` gives for a feature map on a CPU, (R, C, P, P), equal up to rounding.

    Args:
        align: the settings.
        x: (B, C, H, W).
        rows: (R, 5), the index of the image and the region ``xyxy`` in pixels.
    """
    bins = align.output_size
    table = x.permute(0, 2, 3, 1).flatten(0, 2)  # a row of C numbers for each cell
    with torch.no_grad():
        matrix = bin_weights(align, rows.to(x.dtype), (len(x), *x.shape[-2:]))
    with torch.autocast("cpu", enabled=False):
        out = torch.sparse.mm(matrix, table)
    return out.view(len(rows), *bins, x.shape[1]).permute(0, 3, 1, 2)


def bin_weights(align: ROIAlign, rows: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """The sparse (R * P * P, B * H * W) matrix of the weight of each cell in each bin.

    Args:
        align: the settings.
        rows: (R, 5), as for :func:`aligned`.
        shape: B, H, W.
    """
    _, height, width = shape
    high, wide = align.output_size
    shift = 0.5 if align.aligned else 0.0
    left, top, right, bottom = (rows[:, 1:] * align.spatial_scale - shift).unbind(1)
    least = 0.0 if align.aligned else 1.0  # of a side, in cells
    y_extent, x_extent = ((b - a).clamp(min=least) for a, b in ((top, bottom), (left, right)))
    y_weights = axis_weights(top, y_extent, height, high, align.sampling_ratio)
    x_weights = axis_weights(left, x_extent, width, wide, align.sampling_ratio)
    (y_first, y_count), (x_first, x_count) = _spans(y_weights), _spans(x_weights)
    # A bin has a rectangle of cells; all cells of all bins are listed one after the other.
    counts = (y_count[:, :, None] * x_count[:, None]).flatten()
    entry = torch.arange(len(counts)).repeat_interleave(counts)
    within = torch.arange(len(entry)) - (counts.cumsum(0) - counts)[entry]
    region = entry // (high * wide)
    y_bin, x_bin = entry // wide, region * wide + entry % wide
    columns = x_count.flatten()[x_bin]
    y = y_first.flatten()[y_bin] + within // columns
    x = x_first.flatten()[x_bin] + within % columns
    cell = (rows[:, 0].long()[region] * height + y) * width + x
    values = y_weights.flatten(0, 1)[y_bin, y] * x_weights.flatten(0, 1)[x_bin, x]
    return torch.sparse_coo_tensor(
        torch.stack([entry, cell]),
        values,
        (len(counts), shape[0] * height * width),
        is_coalesced=True,
        check_invariants=False,
    )


def axis_weights(start: Tensor, extent: Tensor, size: int, bins: int, samples: int) -> Tensor:
    """The weight of each of the ``size`` cells of an axis in each bin of each region, (R, P, size).

    Args:
        start, extent: (R,) of the regions along the axis, in cells.
        size: the number of cells.
        bins: P.
        samples: S; 0: as many as a bin has cells, rounded up.
    """
    step = extent / bins
    count = (step.ceil() if samples <= 0 else torch.full_like(step, samples))[:, None, None]
    number = torch.arange(int(count.max()) if len(start) else 0)
    inner = torch.arange(bins)[:, None] + (number + 0.5) / count.clamp(min=1)
    at = start[:, None, None] + step[:, None, None] * inner
    # A sample more than one cell outside of the map counts as 0; one nearer is moved to its border.
    weight = ((number < count) & (at >= -1) & (at <= size)) / count.clamp(min=1)
    at = at.clamp(0, size - 1)
    first = at.floor().clamp(max=max(size - 2, 0))
    part = at - first
    weights = at.new_zeros(len(start), bins, size + 1)
    weights.scatter_add_(2, first.long(), weight * (1 - part))
    weights.scatter_add_(2, first.long() + 1, weight * part)
    return weights[..., :size]


def _spans(weights: Tensor) -> tuple[Tensor, Tensor]:
    """First cell that counts, and the number of cells from it to the last one, (R, P) each."""
    counts = weights != 0
    first = counts.int().argmax(-1)
    last = weights.shape[-1] - 1 - counts.flip(-1).int().argmax(-1)
    return first, torch.where(counts.any(-1), last - first + 1, 0)
