"""Backbones in a set of weights: which network it is, and its names inside a model.

ResNets have torchvision's names or Detectron2's, Swin Transformers any published ones, other
networks timm's. A file is recognised by its names, wherever the network is inside the model: alone,
as a detector's ``backbone`` or below a feature pyramid.
"""

import re

import torch
from torch import nn

from ..errors import CheckpointError
from .coverage import grouped
from .files import State
from .heads import rows
from .swin_names import is_swin, swin_names
from .timm_names import timm_weights

_STEM = "stem.conv1.weight"
_BACKBONE = re.compile(r"^(stem|res[2-5])\.")
_INSIDE = re.compile(r"((?:.*?\.)?)(stem|res[2-5])\.")
_CLASSIFIER = re.compile(r"^(fc|stem\.fc|linear)\.|num_batches_tracked$")
_RULES = (
    (r"^conv1\.", "stem.conv1."),
    (r"^bn1\.", "stem.conv1.norm."),
    (r"\.bn(\d)\.", r".conv\1.norm."),
    (r"\.downsample\.0\.", ".shortcut."),
    (r"\.downsample\.1\.", ".shortcut.norm."),
    (r"^layer(\d)\.", lambda match: f"res{int(match[1]) + 1}."),
)
_BLOCKS = {
    False: {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)},
    True: {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)},
}
_SWINS = {96: "a Swin-T", 128: "a Swin-B", 192: "a Swin-L"}  # by channels at stride 4
# In a transformer, in an R-CNN with a feature pyramid, and in one whose box head is the last stage.
_RESIDUAL = re.compile(
    r"(?:backbone\.(?:bottom_up\.)?|roi_heads\.)?res([2-5])\.(\d{1,2})\.(conv3\.)?"
)


def detectron2_names(state: State) -> dict[str, torch.Tensor]:
    """A torchvision ResNet's state dict under Detectron2's names, without its classifier."""
    renamed = {}
    for name, value in state.items():
        for pattern, replacement in _RULES:
            name = re.sub(pattern, replacement, name)
        if _BACKBONE.match(name) and not name.endswith("num_batches_tracked"):
            renamed[name] = value
    return renamed


def own_names(bare: State, source: str) -> dict[str, torch.Tensor]:
    """A ResNet or Swin of any published names under those of this project's backbones.

    Raises:
        CheckpointError: a name belongs to neither.
    """
    bare = {name: value for name, value in bare.items() if not _CLASSIFIER.search(name)}
    if is_swin(bare):
        return swin_names(bare)
    unknown = [name for name in bare if not detectron2_names({name: bare[name]})]
    if unknown:
        raise CheckpointError(
            f"The backbone in {source} is neither a ResNet nor a Swin; {len(unknown)} of its"
            f" {len(bare)} weights have unknown names: {grouped(unknown)}."
        )
    return detectron2_names(bare)


def in_resnet(name: str) -> re.Match | None:
    """(``backbone.bottom_up.``, ``res2``) of ``backbone.bottom_up.res2.0.conv1.weight``; None
    outside of Detectron2's ResNets.
    """
    return _INSIDE.match(name)


def backbone_weights(state: State, model: nn.Module) -> dict[str, torch.Tensor] | None:
    """An ImageNet network's weights under the names ``model`` has for them.

    Args:
        state: a checkpoint's weights: a bare ResNet with torchvision's or Detectron2's names, a
            Swin Transformer with any published ones, or another network with timm's. Other weights
            of a Caffe2 detector go where exactly one name of the model ends like theirs.
        model: a backbone, or a detector that contains one.

    Returns:
        None when ``state`` is no bare network that ``model`` contains: nothing is to be renamed.
    """
    return _resnet_weights(state, model) or timm_weights(state, model)


def _resnet_weights(state: State, model: nn.Module) -> dict[str, torch.Tensor] | None:
    """A bare ResNet's weights under the names of the one ResNet of Detectron2 in ``model``."""
    if "conv1.weight" in state and "layer1.0.conv1.weight" in state:
        bare = detectron2_names(state)
    elif _STEM in state and "res2.0.conv1.weight" in state:
        # Detectron2's own conversions call torchvision's classifier stem.fc.
        bare = {name: value for name, value in state.items() if not _CLASSIFIER.search(name)}
    else:
        return None
    own = list(model.state_dict())
    if sum(name.endswith(_STEM) for name in own) != 1:
        return None
    # Each stage has its own prefix: the last is in the heads of an R-CNN without a pyramid.
    places = {match[2]: match[1] for match in map(in_resnet, own) if match}
    placed = {}
    for name, value in bare.items():
        if not _BACKBONE.match(name):
            placed[_ending_like(name, own)] = value
        elif (stage := name.split(".")[0]) in places:
            placed[places[stage] + name] = value
        # A detector may stop at an earlier stage; that the file has later ones is then no mistake.
    return placed


def _ending_like(name: str, own: list[str]) -> str:
    """The one name of the model that ends in ``.name``, else ``name``."""
    found = [other for other in own if other.endswith(f".{name}")]
    return found[0] if len(found) == 1 and name not in own else name


def depth_of(state: State) -> int | None:
    """Depth of the smallest ResNet with these blocks, 18 to 152, where not all stages need to be
    there; None: no ResNet.
    """
    blocks, bottleneck = _blocks(state)
    for depth, counts in _BLOCKS[bottleneck].items():
        if any(blocks) and all(b in (0, count) for b, count in zip(blocks, counts, strict=True)):
            return depth
    return None


def described(state: State) -> str:
    """What a detector's backbone is, e.g. "a ResNet-50"; empty when it has none."""
    if depth := depth_of(state):
        return f"a ResNet-{depth}"
    blocks, _ = _blocks(state)
    if any(blocks):
        return f"a ResNet of {'-'.join(map(str, blocks))} blocks"
    other = "a backbone of another kind"
    if patches := rows(state, "backbone.timm.patch_embed.proj.weight"):
        deep = any(name.startswith("backbone.timm.layers_2.blocks.6.") for name in state)
        return "a Swin-S" if deep and patches == 96 else _SWINS.get(patches, other)
    return other if any(name.startswith("backbone.") for name in state) else ""


def same_backbone(state: State, own: State) -> bool:
    """Whether two detectors have the same backbone, as far as both have stages of it."""
    theirs, ours = described(state), described(own)
    (a, a_bottleneck), (b, b_bottleneck) = _blocks(state), _blocks(own)
    if any(a) and any(b):
        pairs = zip(a, b, strict=True)
        return a_bottleneck == b_bottleneck and all(x == y for x, y in pairs if x and y)
    # Of two other networks, their names tell whether they are the same.
    return theirs == ours or not theirs or not ours


def _blocks(state: State) -> tuple[tuple[int, ...], bool]:
    """(how many residual blocks each stage of a ResNet has, whether they are bottlenecks)."""
    counts, bottleneck = [0, 0, 0, 0], False
    for match in filter(None, map(_RESIDUAL.match, state)):
        stage = int(match[1]) - 2
        counts[stage] = max(counts[stage], int(match[2]) + 1)
        bottleneck = bottleneck or bool(match[3])
    return tuple(counts), bottleneck
