"""Names of timm's ImageNet files: those of a classifier and of the same network inside a backbone.

A backbone has its network under ``timm.``; there, timm has flattened the outermost sequences
(``stages.0.`` becomes ``stages_0.``) or put the whole network under ``model.`` or ``body.``.
"""

import re

import torch
from torch import nn

from .files import State
from .swin_names import is_swin, swin_names

_NETWORK = re.compile(r"((?:.*?\.)?)timm\.")
_WHOLE = re.compile(r"(?:model|body)\.")


def timm_weights(state: State, model: nn.Module) -> dict[str, torch.Tensor] | None:
    """A bare network's weights under the names of the one backbone of timm in ``model``.

    Weights of parts that the backbone does not have (classifier, later stages) are left out.

    Args:
        state: timm's file of that network, any published Swin, or the state dict of a backbone.
        model: a backbone of timm, or a detector that contains one.

    Returns:
        None when ``state`` is no such file, or ``model`` contains no or several such backbones.
    """
    names = list(model.state_dict())
    prefixes = {match[1] for match in map(_NETWORK.match, names) if match}
    if len(prefixes) != 1:
        return None
    prefix = prefixes.pop()
    own = {name.removeprefix(prefix) for name in names if name.startswith(prefix)}
    parts = {_part(name) for name in own}
    if all(key.startswith(("timm.", "norms.")) for key in state):
        bare = state
    elif is_swin(state):
        later = re.compile(r"timm\.layers_\d")
        bare = {
            k: v for k, v in swin_names(state).items() if _part(k) in parts or not later.match(k)
        }
    else:
        bare = {k: v for k, v in _in_backbone(state, own).items() if _part(k) in parts}
    return {prefix + key: value for key, value in bare.items()} if own & bare.keys() else None


def _in_backbone(state: State, own: set[str]) -> dict[str, torch.Tensor]:
    """A classifier's state dict under the backbone's names, as far as it has such parts."""
    whole = {match[0] for name in own if (match := _WHOLE.match(name.removeprefix("timm.")))}
    inside = f"timm.{whole.pop()}" if len(whole) == 1 else "timm."
    parts = {_part(name) for name in own}
    renamed = {}
    for key, value in state.items():
        name = inside + key
        if name not in own and _part(name) not in parts:
            name = inside + key.replace(".", "_", 1)
        renamed[name] = value
    return renamed


def _part(name: str) -> str:
    """The part of a network that a backbone has as a whole or not at all.

    ``timm.layer3`` of ``timm.layer3.0.conv1.weight``.
    """
    depth = 3 if _WHOLE.match(name.removeprefix("timm.")) else 2
    return ".".join(name.split(".")[:depth])
