"""ImageNet backbones under the names of the model that contains one.

A file is recognised by its names, whatever stands in front of them in the model, so the same file
starts a bare network, a detector's `backbone` or the bottom of a feature pyramid. Here: ResNets,
torchvision's names and Detectron2's, one mapped to the other.
"""

import re

import torch
from torch import nn

from .timm_names import timm_weights

__all__ = ["backbone_weights", "detectron2_names", "in_resnet"]

_STEM = "stem.conv1.weight"
_BACKBONE = re.compile(r"^(stem|res[2-5])\.")
_INSIDE = re.compile(r"((?:.*?\.)?)(stem|res[2-5])\.")
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


def in_resnet(name: str) -> re.Match | None:
    """Whether a name of a model's is inside a ResNet of Detectron2: (what comes before, its part).

    `backbone.bottom_up.` and `res2` of `backbone.bottom_up.res2.0.conv1.weight`.
    """
    return _INSIDE.match(name)


def backbone_weights(
    state: dict[str, torch.Tensor], model: nn.Module
) -> dict[str, torch.Tensor] | None:
    """An ImageNet network's weights under the names `model` has for them.

    Args:
        state: a checkpoint's weights: a bare ResNet with torchvision's or Detectron2's names, a
            Swin Transformer with any published ones, or another network with timm's. What else a
            Caffe2 detector has goes where a name of the model ends like it.
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
    own = list(model.state_dict())
    if sum(key.endswith(_STEM) for key in own) != 1:
        return None
    # Stage by stage: the last one may be elsewhere, in the heads of an R-CNN without a pyramid.
    places = {match[2]: match[1] for match in map(in_resnet, own) if match}
    placed = {}
    for key, value in bare.items():
        if not _BACKBONE.match(key):
            placed[_ending_like(key, own)] = value
        elif (stage := key.split(".")[0]) in places:
            placed[places[stage] + key] = value
        # A detector may stop at an earlier stage; that the file has later ones is then no mistake.
    return placed


def _ending_like(key: str, own: list[str]) -> str:
    """The one name of the model's that ends in `.key`, else `key`."""
    found = [name for name in own if name.endswith(f".{key}")]
    return found[0] if len(found) == 1 and key not in own else key
