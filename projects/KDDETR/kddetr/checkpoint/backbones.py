"""ImageNet backbones under the names of the model that contains one.

A file is recognised by its names, whatever stands in front of them in the model, so the same file
starts a bare network, a detector's `backbone` or the bottom of a feature pyramid. Here: ResNets,
torchvision's names and Detectron2's, one mapped to the other.
"""

import re

import torch
from torch import nn

from .timm_names import timm_weights

__all__ = ["backbone_weights", "detectron2_names"]

_STEM = "stem.conv1.weight"
_BACKBONE = re.compile(r"^(stem|res[2-5])\.")
_RULES = (
    (r"^conv1\.", "stem.conv1."),
    (r"^bn1\.", "stem.conv1.norm."),
    (r"\.bn(\d)\.", r".conv\1.norm."),
    (r"\.downsample\.0\.", ".shortcut."),
    (r"\.downsample\.1\.", ".shortcut.norm."),
)


def detectron2_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A torchvision ResNet's state dict under Detectron2's names, without its classifier.

    Args:
        state: names such as `conv1.weight`, `layer1.0.bn2.bias`, `fc.weight`.
    """
    renamed = {}
    for key, value in state.items():
        for pattern, replacement in _RULES:
            key = re.sub(pattern, replacement, key)
        key = re.sub(r"^layer(\d)\.", lambda match: f"res{int(match[1]) + 1}.", key)
        if _BACKBONE.match(key) and not key.endswith("num_batches_tracked"):
            renamed[key] = value
    return renamed


def backbone_weights(
    state: dict[str, torch.Tensor], model: nn.Module
) -> dict[str, torch.Tensor] | None:
    """An ImageNet network's weights under the names `model` has for them.

    Args:
        state: a checkpoint's weights: a bare ResNet with torchvision's or Detectron2's names, a
            Swin Transformer with any published ones, or another network with timm's.
        model: a backbone, or a detector that contains one.

    Returns:
        None when `state` is no bare network that `model` contains: nothing is to be renamed.
    """
    return _resnet_weights(state, model) or timm_weights(state, model)


def _resnet_weights(
    state: dict[str, torch.Tensor], model: nn.Module
) -> dict[str, torch.Tensor] | None:
    """A bare ResNet's weights under the names of the one ResNet of Detectron2 in `model`."""
    if "conv1.weight" in state and "layer1.0.conv1.weight" in state:
        bare = detectron2_names(state)
    elif _STEM in state and "res2.0.conv1.weight" in state:
        # torchvision's classifier is called stem.fc in Detectron2's own conversions of its files.
        bare = {
            key: value
            for key, value in state.items()
            if not key.startswith(("stem.fc.", "linear."))
        }
    else:
        return None
    prefixes = [key.removesuffix(_STEM) for key in model.state_dict() if key.endswith(_STEM)]
    if len(prefixes) != 1:
        return None
    # A detector may stop at an earlier stage; that the file has later ones is then no mistake.
    own = {key for key in model.state_dict() if key.startswith(prefixes[0])}
    stages = {key.removeprefix(prefixes[0]).split(".")[0] for key in own}
    return {prefixes[0] + k: v for k, v in bare.items() if k.split(".")[0] in stages}
