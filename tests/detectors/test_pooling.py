"""RoIAlign as a sparse matrix product equals torchvision's, forwards and backwards."""

import pytest
import torch
from detectron2.layers import ROIAlign
from detectron2.modeling.poolers import ROIPooler
from detectron2.structures import Boxes

from kddetr.detectors.stock.pooling import aligned, pooled


def regions(count: int, size: tuple[int, int], seed: int = 0) -> torch.Tensor:
    """Random regions of an image (h, w), thin, tiny, huge and empty ones and such outside of it."""
    generator = torch.Generator().manual_seed(seed)
    scale = torch.tensor([size[1], size[0]])
    first = (1.4 * torch.rand(count, 2, generator=generator) - 0.3) * scale
    extent = scale * torch.rand(count, 2, generator=generator) ** 3
    extent[:2, 0], extent[2:4, 1], extent[4] = 0.01, 0.0, 0.0
    return torch.cat([first, first + extent], dim=1).double()


@pytest.mark.parametrize("samples", [0, 2])
@pytest.mark.parametrize("shifted", [True, False])
@pytest.mark.parametrize("bins", [(7, 7), (3, 5)])
@pytest.mark.parametrize("cells", [(12, 17), (1, 3)])
def test_equals_the_kernel_of_torchvision(samples, shifted, bins, cells):
    boxes = regions(40, (8 * cells[0], 8 * cells[1]))
    rows = torch.cat([torch.arange(40)[:, None] % 2, boxes], dim=1)
    align = ROIAlign(bins, 1 / 8, samples, aligned=shifted)
    x = torch.randn(2, 4, *cells, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(40, 4, *bins, dtype=torch.float64)
    found, expected = aligned(align, x, rows), align(x, rows)
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=0)
    (one,), (other,) = (torch.autograd.grad((y * weights).sum(), x) for y in (found, expected))
    torch.testing.assert_close(one, other, atol=1e-9, rtol=0)


@pytest.mark.parametrize("levels", [1, 3])
def test_regions_of_all_levels_keep_their_order(levels):
    pooler = ROIPooler(7, [1 / 4, 1 / 8, 1 / 16][:levels], 0, "ROIAlignV2")
    maps = [torch.randn(2, 4, 96 // 2**i, 128 // 2**i).double() for i in range(levels)]
    maps = [x.requires_grad_() for x in maps]
    boxes = [Boxes(regions(n, (384, 512), seed=n)) for n in (30, 12)]
    found, expected = pooled(pooler, maps, boxes), pooler(maps, boxes)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    pairs = (torch.autograd.grad(y.square().sum(), maps) for y in (found, expected))
    for one, other in zip(*pairs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3)


def test_what_has_no_sparse_product_is_left_to_the_pooler():
    pooler = ROIPooler(7, [1 / 4], 0, "ROIAlignV2")
    maps, boxes = [torch.randn(1, 4, 12, 16)], [Boxes(regions(5, (48, 64)).float())]
    half = [maps[0].half()]
    assert torch.equal(pooled(pooler, half, boxes), pooler(half, boxes))
    assert pooled(pooler, maps, [Boxes(torch.zeros(0, 4))]).shape == (0, 4, 7, 7)
