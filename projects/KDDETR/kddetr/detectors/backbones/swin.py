"""Swin Transformers (Liu et al., ICCV 2021) as the published detectors use them, built by timm.

Unlike a classifier, a detector takes images of any size: feature maps are padded to whole windows,
windows are shifted in every second block at any size, and each used feature has a LayerNorm.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...ranges import fraction
from .timm_backbone import TimmBackbone, timm_backbone

SIZES = {
    ("tiny", 7): "swin_tiny_patch4_window7_224",
    ("small", 7): "swin_small_patch4_window7_224",
    ("base", 7): "swin_base_patch4_window7_224",
    ("base", 12): "swin_base_patch4_window12_384",
    ("large", 7): "swin_large_patch4_window7_224",
    ("large", 12): "swin_large_patch4_window12_384",
}


def swin(
    *,
    size: str,
    window: int = 7,
    out_features: Sequence[str] = ("res3", "res4", "res5"),
    freeze_at: int = 0,
    drop_path: float = 0.2,
    layer_norm: bool = True,
    checkpoint_activations: bool = False,
) -> TimmBackbone:
    """A Swin Transformer with random weights, for images of any size.

    Args:
        size: ``tiny``, ``small``, ``base`` or ``large``: 96, 96, 128, 192 channels at stride 4.
        window: side of a window in tokens: 7 for weights trained at 224 pixels, 12 for those at 384
            (base and large).
        out_features, freeze_at, layer_norm, checkpoint_activations: see :func:`timm_backbone`.
        drop_path: probability of dropping a residual branch of the last block in training; it grows
            linearly from 0 at the first.

    Raises:
        ImportError: timm is not installed.
        ValueError: no weights of that size and window are published, or an argument is out of
            range.
    """
    fraction(drop_path=drop_path)
    if (size, window) not in SIZES:
        known = ", ".join(f"size={name} window={side}" for name, side in SIZES)
        raise ValueError(
            f"No Swin is published as {size} with window {window}; choose one of {known}."
        )
    backbone = timm_backbone(
        name=SIZES[size, window],
        out_features=out_features,
        freeze_at=freeze_at,
        layer_norm=layer_norm,
        divisor=4,  # the side of a patch
        checkpoint_activations=checkpoint_activations,
        options={
            "drop_path_rate": drop_path,
            "strict_img_size": False,
            "always_partition": True,  # else timm does not shift small maps
        },
    )
    for block in backbone.modules():
        if type(block).__name__ == "SwinTransformerBlock":
            block._attn = partial(_attend_padded, block)
            block.get_attn_mask = partial(_window_mask, block.window_size, block.shift_size)
        elif type(block).__name__ == "PatchMerging":
            block.forward = partial(_merge_padded, block)
    return backbone


def _padded_to(x: Tensor, rows: int, columns: int) -> Tensor:
    """A map (B, H, W, C) that is padded with zeros to multiples of rows and columns.

    The padding is not written as ``-height % rows``, so that an exporter sees for any size that the
    result is a multiple.
    """
    height, width = x.shape[1:3]
    below = (height + rows - 1) // rows * rows - height
    right = (width + columns - 1) // columns * columns - width
    return F.pad(x, (0, 0, 0, right, 0, below))


def _merge_padded(merging: nn.Module, x: Tensor) -> Tensor:
    """timm's merging of 2 x 2 tokens on a map that is padded already."""
    return type(merging).forward(merging, _padded_to(x, 2, 2))


def _attend_padded(block: nn.Module, x: Tensor) -> Tensor:
    """Window attention on a map (B, H, W, C) that is padded to whole windows before the shift.

    timm pads after shifting, but masks as if it had padded before, as the published code does:
    where the map is no multiple of the window, tokens of opposite borders would attend to each
    other.
    """
    height, width = x.shape[1:3]
    x = _padded_to(x, *block.window_size)
    return type(block)._attn(block, x)[:, :height, :width]


def _window_mask(
    window: tuple[int, int],
    shift: tuple[int, int],
    x: Tensor | None = None,
    device: torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor | None:
    """timm's ``get_attn_mask`` of a block, without assignments to slices, which an exporter cannot
    follow for maps of any size: (windows, A, A), -100 between tokens of a window of A tokens that
    came from opposite borders.
    """
    if not any(shift) or x is None:
        return None
    areas = []
    for n, side, moved in zip(x.shape[1:3], window, shift, strict=True):
        place = torch.arange(n, device=x.device)
        areas.append((place >= n - side).long() + (place >= n - moved).long())
    area = 3 * areas[0][:, None] + areas[1]
    area = area.view(x.shape[1] // window[0], window[0], x.shape[2] // window[1], window[1])
    area = area.transpose(1, 2).reshape(-1, window[0] * window[1])
    return ((area[:, None] != area[:, :, None]) * -100.0).to(x.dtype)
