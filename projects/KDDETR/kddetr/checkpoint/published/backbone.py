"""The backbone inside a published detector's file."""

import re
from collections.abc import Mapping

import torch

from ...errors import CheckpointError
from ..backbones import detectron2_names
from ..coverage import grouped
from ..swin_names import is_swin, swin_names
from .classes import rows

__all__ = [
    "backbone_names",
    "depth_of",
    "described",
    "imagenet_names",
    "same_backbone",
    "split",
]

# The longest first: each is also the beginning of those in front of it.
_PREFIXES = (
    "model.backbone.conv_encoder.model._backbone.",
    "model.backbone.conv_encoder.model.",
    "model.backbone.model._backbone.",
    "model.backbone.model.",
    "backbone.0.body.",
    "backbone.0.",
    "backbone.",
)
_BLOCKS = {
    False: {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)},
    True: {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)},
}
_SWINS = {96: "a Swin-T", 128: "a Swin-B", 192: "a Swin-L"}  # by channels at stride 4
_NO_BACKBONE = re.compile(r"^(fc|stem\.fc|linear)\.|num_batches_tracked$")
# Of a transformer, an R-CNN on a feature pyramid, and one whose last stage is its box head.
_RESIDUAL = re.compile(
    r"(?:backbone\.(?:bottom_up\.)?|roi_heads\.)?res([2-5])\.(\d{1,2})\.(conv3\.)?"
)
_NORM = ("weight", "bias", "running_mean", "running_var")
State = Mapping[str, torch.Tensor]


def split(state: State) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], str]:
    """(the rest of a detector, its backbone without what stands before its names, that prefix)."""
    found = [name for name in state if name.startswith(("backbone.", "model.backbone."))]
    prefix = next((p for p in _PREFIXES if found and all(n.startswith(p) for n in found)), "")
    if not prefix:
        return dict(state), {}, ""
    rest = {k: v for k, v in state.items() if not k.startswith(prefix)}
    return rest, {k.removeprefix(prefix): state[k] for k in found}, prefix


def backbone_names(bare: State, source: str) -> tuple[dict[str, torch.Tensor], list[str]]:
    """A backbone under this project's names, and what else it would have by the names in the file.

    Args:
        bare: torchvision's, Detectron2's or a Swin's names.
        source: where it comes from, for messages.

    Raises:
        CheckpointError: it is no such backbone.
    """
    bare = dict(bare)
    if is_swin(bare):
        return swin_names(bare), []
    renamed = bare if any(re.match(r"(stem|res\d)\.", name) for name in bare) else None
    renamed = renamed or detectron2_names(bare)
    strange = [name for name in bare if not detectron2_names({name: bare[name]})]
    if strange or not renamed:
        raise CheckpointError(
            f"The backbone in {source} is neither a ResNet nor a Swin that is known here; "
            f"{len(strange)} of its {len(bare)} weights are strange: {grouped(strange)}."
        )
    missing = [name for name in _resnet(renamed) if name not in renamed]
    return renamed, missing if renamed is bare else [_torchvision_name(name) for name in missing]


def imagenet_names(state: State, source: str) -> dict[str, torch.Tensor] | None:
    """A classifier's file of its own as the weights of a backbone; None when it is no such file.

    Raises:
        CheckpointError: it is a ResNet's with a part missing or strange.
    """
    if not ({"layer1.0.conv1.weight", "stem.conv1.weight"} & state.keys() or is_swin(dict(state))):
        return None
    bare = {k: v for k, v in state.items() if not _NO_BACKBONE.search(k)}
    renamed, missing = backbone_names(bare, source)
    if missing:
        raise CheckpointError(
            f"{source} looks like a ResNet, but {len(missing)} of its weights are missing: "
            f"{grouped(missing)}."
        )
    return renamed


def depth_of(state: State) -> int | None:
    """18 to 152 for a ResNet under Detectron2's names, None for anything else."""
    blocks, bottleneck = _blocks(state)
    known = _BLOCKS[bottleneck]
    return next((depth for depth, counts in known.items() if counts == blocks), None)


def described(state: State) -> str:
    """What the backbone of a detector under this project's names is: `a ResNet-50`; empty if none.

    One that stops at an earlier stage is the smallest that begins like it.
    """
    blocks, bottleneck = _blocks(state)
    if any(blocks):
        for depth, counts in _BLOCKS[bottleneck].items():
            if all(b in (0, known) for b, known in zip(blocks, counts, strict=True)):
                return f"a ResNet-{depth}"
        return f"a ResNet of {'-'.join(map(str, blocks))} blocks"
    if patches := rows(state, "backbone.timm.patch_embed.proj.weight"):
        deep = any(name.startswith("backbone.timm.layers_2.blocks.6.") for name in state)
        return "a Swin-S" if deep and patches == 96 else _SWINS.get(patches, "another backbone")
    return "another backbone" if any(name.startswith("backbone.") for name in state) else ""


def same_backbone(state: State, own: State) -> bool:
    """Whether two detectors have the same backbone, as far as both have stages of it."""
    theirs, ours = described(state), described(own)
    if not theirs or not ours:
        return True
    (a, a_bottleneck), (b, b_bottleneck) = _blocks(state), _blocks(own)
    if any(a) and any(b):
        pairs = zip(a, b, strict=True)
        return a_bottleneck == b_bottleneck and all(x == y for x, y in pairs if x and y)
    if theirs == ours == "another backbone":
        return True  # their names will tell
    return theirs == ours


_TO_TORCHVISION = (
    (r"^stem\.", ""),
    (r"^res(\d)", lambda match: f"layer{int(match[1]) - 1}"),
    (r"conv(\d)\.norm", r"bn\1"),
    (r"shortcut\.norm", "downsample.1"),
    (r"shortcut", "downsample.0"),
)


def _torchvision_name(name: str) -> str:
    """The inverse of what `detectron2_names` does to one name."""
    for pattern, replacement in _TO_TORCHVISION:
        name = re.sub(pattern, replacement, name)
    return name


def _blocks(state: State) -> tuple[tuple[int, ...], bool]:
    counts, bottleneck = [0, 0, 0, 0], False
    for name in state:
        if match := _RESIDUAL.match(name):
            stage = int(match[1]) - 2
            counts[stage] = max(counts[stage], int(match[2]) + 1)
            bottleneck = bottleneck or bool(match[3])
    return tuple(counts), bottleneck


def _resnet(state: State) -> list[str]:
    """Names of the smallest known ResNet that has all blocks of this one."""
    blocks, bottleneck = _blocks(state)
    for known in _BLOCKS[bottleneck].values():
        if all(a <= b for a, b in zip(blocks, known, strict=True)):
            blocks = known
            break
    convolutions = ["stem.conv1"]
    for stage, count in enumerate(blocks):
        for i in range(count):
            block = f"res{stage + 2}.{i}"
            convolutions += [f"{block}.conv{k}" for k in range(1, 4 if bottleneck else 3)]
            if not i and (stage or bottleneck):
                convolutions.append(f"{block}.shortcut")
    return [
        f"{name}.{end}"
        for name in convolutions
        for end in ("weight", *(f"norm.{part}" for part in _NORM))
    ]
