"""The detector that a set of weights belongs to: a LazyConfig node, from names and shapes alone.

The weights have this project's own names; those of published files are renamed first. Settings that
no shape shows, such as the temperature of the positional embedding, are given.
"""

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

from detectron2.config import LazyCall as L
from omegaconf import DictConfig

from ..checkpoint.adapt import sizes
from ..checkpoint.backbones import depth_of, described
from ..checkpoint.files import State
from ..checkpoint.heads import count_classes, count_heads, count_parts, rows
from ..detectors import TinyConvNet, dab_detr, deformable_detr, dino, resnet, swin
from ..errors import UsageError

Settings = Mapping[str, Any]

# What no shape shows, by the key of a detector's settings, and the argument of its builder.
NEEDED = ("temperature", "offset", "eps", "num_heads")
_OF_ANCHORS = "anchor_temperature"
_SWINS = {96: "tiny", 128: "base", 192: "large"}


def is_transformer(state: State) -> bool:
    """Whether these are the weights of a detection transformer of this project."""
    return count_heads(state) > 0 and rows(state, "decoder.layers.0.self_norm.weight") > 0


def transformer_node(state: State, settings: Settings, source: str) -> DictConfig:
    """A detection transformer as a LazyConfig node.

    Args:
        state: its weights by this project's names.
        settings: ``temperature``, ``offset``, ``eps`` and ``num_heads``; for DAB-DETR also
            ``anchor_temperature``, for a neck with GroupNorm ``groups``, for two-stage Deformable
            DETR ``num_queries``; ``backbone.dilation`` where it is true.
        source: the file's name, for messages.

    Raises:
        UsageError: a setting is not given, or the backbone is of an unknown kind; the message says
            what to give.
    """
    builder = family(state)
    found = sizes(state)
    levels = count_parts(state, "neck.levels")
    channels = [state[f"neck.levels.{i}.0.weight"].shape[1] for i in range(levels)]
    backbone, features = backbone_node(state, channels, settings, source)
    options: dict[str, Any] = {
        "num_classes": count_classes(state),
        "num_queries": found["num_queries"],
        "embed_dim": rows(state, "decoder.layers.0.self_norm.weight"),
        "feedforward_dim": rows(state, "decoder.layers.0.feed_forward.inner.weight"),
        "encoder_layers": found["encoder_layers"],
        "decoder_layers": found["decoder_layers"],
    }
    slopes = "decoder.layers.0.feed_forward.activation.weight"
    options["activation"] = "prelu" if slopes in state else "relu"
    needed = list(NEEDED)
    if builder is dab_detr:
        options["in_feature"] = features[0]
        needed.append(_OF_ANCHORS)
    else:
        options["in_features"] = features
        options["extra_levels"] = count_parts(state, "neck.extra")
        if "neck.levels.0.1.weight" in state:
            needed.append("groups")
        else:
            options["groups"] = 0
    if builder is dino:
        options["shared_heads"] = count_heads(state) == 1
    elif builder is deformable_detr:
        options["variant"] = _variant(state)
        if options["variant"] == "two_stage":  # its queries are as many of the proposals
            needed.append("num_queries")
    options |= _given(settings, needed, builder, source)
    if builder is not dab_detr:
        offsets = rows(state, "decoder.layers.0.cross_attention.sampling_offsets.weight")
        per_point = 2 * options["num_heads"] * (levels + options["extra_levels"])
        options["num_sampling_points"] = max(1, offsets // per_point)
    return L(builder)(backbone=backbone, **options)


def _given(settings: Settings, needed: list[str], builder: Callable, source: str) -> dict[str, Any]:
    if missing := [name for name in needed if name not in settings]:
        usual = inspect.signature(builder).parameters
        example = " ".join(f"teacher.{name}={usual[name].default:g}" for name in missing)
        raise UsageError(
            f"The weights in {source} do not show {', '.join(missing)} of the detector: give what"
            f" it was trained with, for example {example}."
        )
    return {name: settings[name] for name in needed}


def family(state: State) -> Callable[..., Any]:
    """The function that builds a detector with these weights: ``dab_detr``, ``deformable_detr`` or
    ``dino``.
    """
    if "query_source.content" in state:
        return dino
    if "decoder.layers.0.cross_attention.sampling_offsets.weight" in state:
        return deformable_detr
    return dab_detr


def _variant(state: State) -> str:
    if "query_source.anchors" in state:
        return "anchors"
    if "query_source.embed.weight" in state:
        return "two_stage"
    return "refine" if count_heads(state) > 1 else "plain"


def backbone_node(
    state: State, channels: list[int], settings: Settings, source: str
) -> tuple[DictConfig, list[str]]:
    """The backbone in a detector's weights, and the names of its features that are used.

    Args:
        state: the detector's weights.
        channels: those of the features, fine to coarse.
        settings: of which ``backbone.dilation`` is read.
        source: the file's name, for messages.

    Raises:
        UsageError: the backbone is neither a ResNet nor a Swin nor a :class:`TinyConvNet`.
    """
    if depth := depth_of(state):
        widest = 2048 if depth >= 50 else 512
        names = [f"res{5 - (widest // count).bit_length() + 1}" for count in channels]
        node = L(resnet)(depth=depth, out_features=names, freeze_at=2)
        if "backbone.stem.conv1.norm.running_mean" not in state:
            node.norm = "GN"
        if settings.get("backbone.dilation"):
            node.dilation = True
        return node, names
    if patches := rows(state, "backbone.timm.patch_embed.proj.weight"):
        table = rows(state, _table(state))
        window = round((table**0.5 + 1) / 2)
        size = "small" if described(state) == "a Swin-S" else _SWINS.get(patches, "tiny")
        names = [f"res{(count // patches).bit_length() + 1}" for count in channels]
        layer_norm = any(name.startswith("backbone.norms.") for name in state)
        return L(swin)(size=size, window=window, out_features=names, layer_norm=layer_norm), names
    if "backbone.stages.stage0.0.0.weight" in state:
        return _tiny(state, channels)
    raise UsageError(
        f"{source} is a detector with {described(state) or 'no backbone'}, which its weights do"
        " not describe: name the config that it was trained with, --teacher-config CONFIG.py."
    )


def _table(state: State) -> str:
    """The name of a table of relative positions of a Swin, whose length shows the window."""
    return next((name for name in state if name.endswith("relative_position_bias_table")), "")


def _tiny(state: State, channels: list[int]) -> tuple[DictConfig, list[str]]:
    stages = max(
        int(match[1]) + 1
        for match in (re.match(r"backbone\.stages\.stage(\d+)\.", name) for name in state)
        if match
    )
    places = [f"backbone.stages.stage{i}" for i in range(stages)]
    widths = [rows(state, f"{place}.0.0.weight") for place in places]
    names = [f"stage{len(widths) - 1 - widths[::-1].index(count)}" for count in channels]
    blocks = [max(0, count_parts(state, place) - 1) for place in places]
    norm = "BN" if f"{places[0]}.0.1.num_batches_tracked" in state else "FrozenBN"
    return L(TinyConvNet)(channels=widths, blocks=blocks, out_features=names, norm=norm), names
