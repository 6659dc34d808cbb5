"""Names of Swin Transformers: those of the published files and those of this project's backbone.

Microsoft's ImageNet files, the detectors' that descend from them and timm's differ in where the
merging of patches is counted: at the end of a stage or at the start of the next. The order of the
four merged patches is the same in all of them.
"""

import re

import torch

from .files import State

_TABLE = "layers.0.blocks.0.attn.relative_position_bias_table"
_MERGED_AT_THE_END = "layers.0.downsample.reduction.weight"
# Tables that follow from the window's size, the classifier, and the norm in front of it.
_NOT_OF_A_BACKBONE = re.compile(r"relative_position_index$|attn_mask$|^head\.|^norm\.")


def is_swin(state: State) -> bool:
    """Whether these are the names of a bare Swin Transformer, in any of its published forms."""
    return "patch_embed.proj.weight" in state and _TABLE in state


def swin_names(state: State) -> dict[str, torch.Tensor]:
    """A bare Swin's state dict under the names of :func:`kddetr.detectors.backbones.swin`.

    Args:
        state: names such as ``layers.0.blocks.1.attn.qkv.weight``, ``layers.1.downsample...``:
            Microsoft's, timm's, or those of a DINO file behind ``backbone.0.`` (its authors') or
            ``backbone.`` (detrex), the norms of its features included (``norm1.weight``).

    Returns:
        ``timm.layers_0.blocks.1.attn.qkv.weight``, ``timm.layers_1.downsample...``; the norms of a
        detector's features as ``norms.res3.weight`` (from norm1, of the stage with stride 8). The
        classifier, the norm in front of it, and tables that follow from the window are left out.
        Names that no Swin has stay, under ``timm.``, so that the load reports them.
    """
    shift = 1 if _MERGED_AT_THE_END in state else 0
    renamed = {}
    for key, value in state.items():
        if _NOT_OF_A_BACKBONE.search(key):
            continue
        if match := re.match(r"norm(\d)\.(.*)", key):
            renamed[f"norms.res{int(match[1]) + 2}.{match[2]}"] = value
            continue
        if match := re.match(r"layers\.(\d)\.(downsample\.)?(.*)", key):
            stage = int(match[1]) + (shift if match[2] else 0)
            key = f"layers_{stage}.{match[2] or ''}{match[3]}"
        renamed[f"timm.{key}"] = value
    return renamed
