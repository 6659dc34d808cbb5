"""Counted operations: two for each multiplication with its addition, forward and backward.

torch.utils.flop_counter counts matrix products, convolutions and, on a GPU, attention. Added here
are attention on a CPU and bilinear sampling, which is what deformable attention and RoIAlign do at
their points. Deformable attention is always counted in its grid_sample form, whichever kernel is
timed, so that no kernel's operations are hidden; all kinds of steps are counted alike. Operations
of compiled modules are those of the same modules run plainly, because the counter does not see into
a compiled kernel.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import (
    FlopCounterMode,
    sdpa_backward_flop_count,
    sdpa_flop_count,
)

from kddetr.detectors.detr.sampling import sampled_by

from .batches import Batch
from .steps import fill_cache, kinds
from .subject import Subject

NEIGHBOURS = 4  # of a bilinear sample, each with a multiplication and an addition
aten = torch.ops.aten


def count_operations(subject: Subject, batch: Batch) -> dict[str, int]:
    """The operations of one run of each kind on the batch; after a teacher's cache is filled."""
    fill_cache(subject, batch)
    return {name: counted(lambda run=run: run(batch)) for name, run in kinds(subject).items()}


def count_detection(student: nn.Module, batch: Batch) -> int:
    """The operations of a detector in evaluation mode on the batch."""
    # The counter cannot follow a module whose input is a parameter where gradients are off.
    with torch.enable_grad():
        return counted(lambda: student(batch))


def counted(run: Callable[[], Any]) -> int:
    """The operations of a call."""
    counter = FlopCounterMode(display=False, custom_mapping=FORMULAS)
    with sampled_by("grid_sample"), uncompiled(), counter:
        run()
    return counter.get_total_flops()


def uncompiled() -> AbstractContextManager[object]:
    """Inside, compiled modules run plainly."""
    return torch.compiler.set_stance("force_eager")


def _attention(query, key, value, *_, out_shape=None, **__) -> int:
    return sdpa_flop_count(query, key, value)


def _attention_backward(grad, query, key, value, *_, out_shape=None, **__) -> int:
    return sdpa_backward_flop_count(grad, query, key, value)


def _grid_sample(maps, grid, *_, out_shape=None, **__) -> int:
    batch, channels, _, _ = maps
    return 2 * NEIGHBOURS * batch * channels * grid[1] * grid[2]


def _grid_sample_backward(grad, maps, grid, *_, out_shape=None, **__) -> int:
    # The gradient of the map, and that of the places, each as much as the forward pass.
    return 2 * _grid_sample(maps, grid)


def _roi_align(maps, rois, scale, height, width, ratio, *_, out_val=None, **__) -> int:
    return _samples(rois, scale, height, width, ratio) * 2 * NEIGHBOURS * maps.shape[1]


def _roi_align_backward(
    grad, rois, scale, height, width, batch, channels, h, w, ratio, *_, out_val=None, **__
) -> int:
    return _samples(rois, scale, height, width, ratio) * 2 * NEIGHBOURS * channels


def _samples(rois: Tensor, scale: float, height: int, width: int, ratio: int) -> int:
    """How many places RoIAlign samples; with ratio 0 one for each pixel of a bin."""
    if ratio > 0:
        return len(rois) * height * width * ratio**2
    sizes = (rois[:, 3:] - rois[:, 1:3]).detach().double().cpu() * scale
    across, down = (sizes / torch.tensor([width, height])).ceil().clamp(min=0).unbind(1)
    return int((across * down).sum()) * height * width


def _raw(formula: Callable[..., int]) -> Callable[..., int]:
    """A formula that takes the tensors themselves, and not their shapes."""
    formula._get_raw = True
    return formula


FORMULAS: dict[Any, Callable[..., int]] = {
    aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    aten.grid_sampler_2d: _grid_sample,
    aten.grid_sampler_2d_backward: _grid_sample_backward,
    torch.ops.torchvision.roi_align: _raw(_roi_align),
    torch.ops.torchvision._roi_align_backward: _raw(_roi_align_backward),
}
