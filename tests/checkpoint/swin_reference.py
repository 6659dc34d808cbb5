"""Swin Transformers told from their papers' and torchvision's side, for tests to compare with."""

import re

import torch
from torch import Tensor, nn


def microsoft_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """torchvision's Swin under the names of Microsoft's ImageNet files, tables and all.

    torchvision numbers the parts in a row: embedding 0, stages 1, 3, 5, 7, merges 2, 4, 6.
    """
    renamed = {"layers.0.blocks.1.attn_mask": torch.zeros(64, 49, 49)}
    for key, value in state.items():
        key = re.sub(r"^features\.0\.0\.", "patch_embed.proj.", key)
        key = re.sub(r"^features\.0\.2\.", "patch_embed.norm.", key)
        key = re.sub(
            r"^features\.([246])\.", lambda m: f"layers.{int(m[1]) // 2 - 1}.downsample.", key
        )
        key = re.sub(r"^features\.([1357])\.", lambda m: f"layers.{int(m[1]) // 2}.blocks.", key)
        key = key.replace("mlp.0.", "mlp.fc1.").replace("mlp.3.", "mlp.fc2.")
        if key.endswith("relative_position_index"):
            value = value.reshape(49, 49)
        renamed[key] = value
    return renamed


def published_window_attention(
    attention: nn.Module, x: Tensor, *, window: int, shift: int
) -> Tensor:
    """Window attention of a map (B, H, W, C) by its definition, every token with every other.

    The map is padded with zeros to whole windows and rolled by ``shift``; tokens attend to each
    other when they are in one window and were neighbours before the roll.
    """
    batch, height, width, channels = x.shape
    rows, columns = (-(-side // window) * window for side in (height, width))
    padded = x.new_zeros(batch, rows, columns, channels)
    padded[:, :height, :width] = x
    r = (torch.arange(rows)[:, None].expand(rows, columns).flatten() - shift) % rows
    c = (torch.arange(columns).expand(rows, columns).flatten() - shift) % columns
    group = torch.stack([r // window, c // window, r >= rows - shift, c >= columns - shift])
    seen = (group[:, :, None] == group[:, None, :]).all(0)
    offsets = [t[:, None] % window - t[None, :] % window + window - 1 for t in (r, c)]
    bias = attention.relative_position_bias_table[offsets[0] * (2 * window - 1) + offsets[1]]
    qkv = attention.qkv(padded.flatten(1, 2)).unflatten(-1, (3, attention.num_heads, -1))
    query, key, value = qkv.permute(2, 0, 3, 1, 4)
    scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5 + bias.permute(2, 0, 1)
    scores = scores.masked_fill(~seen, -torch.inf).softmax(-1)
    out = attention.proj((scores @ value).transpose(1, 2).flatten(2))
    return out.unflatten(1, (rows, columns))[:, :height, :width]
