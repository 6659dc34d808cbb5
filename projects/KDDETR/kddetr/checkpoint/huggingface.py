"""Weights of real-time detectors under the names that they have in the package ``transformers``.

The Hub's files have the names of earlier versions of the package. Those of the original projects
(lyuwenyu/RT-DETR, Peterande/D-FINE) have names of their own, with query, key and value in one
matrix. The values are the same everywhere.
"""

import logging
import re
from collections.abc import Iterable, Mapping

import torch
from torch import nn

from ..errors import CheckpointError
from .files import State
from .heads import count_parts, rows

_log = logging.getLogger(__name__)

# Names of the original projects that none of their other files has.
_OF_THE_LINE = ("decoder.dec_score_head.0.weight", "decoder.enc_score_head.weight")
_CLASSES = "model.enc_score_head.weight"
_WIDTH = "model.enc_output.0.weight"
_CONSTANTS = ("decoder.anchors", "decoder.valid_mask")  # computed from the image size
_IN_PROJECTION = re.compile(r"(.+\.self_attn\.)in_proj_(weight|bias)")


def _rules(text: str) -> list[tuple[re.Pattern[str], str]]:
    return [(re.compile(line.split()[0]), line.split()[1]) for line in text.strip().splitlines()]


# From the original projects, in order; every rule that fits is applied.
_ORIGINAL = _rules(r"""
^backbone\.conv1\.conv1_1\.                 model.backbone.model.embedder.embedder.0.
^backbone\.conv1\.conv1_2\.                 model.backbone.model.embedder.embedder.1.
^backbone\.conv1\.conv1_3\.                 model.backbone.model.embedder.embedder.2.
^backbone\.res_layers\.(\d+)\.blocks\.      model.backbone.model.encoder.stages.\1.layers.
^backbone\.stem\.                           model.backbone.model.embedder.
^backbone\.stages\.                         model.backbone.model.encoder.stages.
^(model\.backbone\..+)\.branch2a\.          \1.layer.0.
^(model\.backbone\..+)\.branch2b\.          \1.layer.1.
^(model\.backbone\..+)\.branch2c\.          \1.layer.2.
^(model\.backbone\..+)\.short\.conv\.(conv|norm)\.  \1.shortcut.1.\2.
^(model\.backbone\..+)\.short\.             \1.shortcut.
^(model\.backbone\..+)\.conv\.weight$       \1.convolution.weight
^(model\.backbone\..+)\.(?:norm|bn)\.(\w+)$ \1.normalization.\2
^encoder\.input_proj\.(\d+)\.(?:0|conv)\.   model.encoder_input_proj.\1.0.
^encoder\.input_proj\.(\d+)\.(?:1|norm)\.   model.encoder_input_proj.\1.1.
^encoder\.                                  model.encoder.
_blocks\.(\d+)\.cv2\.0\.                    _blocks.\1.csp_rep1.
_blocks\.(\d+)\.cv2\.1\.                    _blocks.\1.conv2.
_blocks\.(\d+)\.cv3\.0\.                    _blocks.\1.csp_rep2.
_blocks\.(\d+)\.cv3\.1\.                    _blocks.\1.conv3.
_blocks\.(\d+)\.cv(1|4)\.                   _blocks.\1.conv\2.
downsample_convs\.(\d+)\.0\.cv(\d)\.        downsample_convs.\1.conv\2.
^decoder\.input_proj\.(\d+)\.(?:0|conv)\.   model.decoder_input_proj.\1.0.
^decoder\.input_proj\.(\d+)\.(?:1|norm)\.   model.decoder_input_proj.\1.1.
^decoder\.enc_output\.(?:0|proj)\.          model.enc_output.0.
^decoder\.enc_output\.(?:1|norm)\.          model.enc_output.1.
^decoder\.enc_(score|bbox)_head\.           model.enc_\1_head.
^decoder\.denoising_class_embed\.           model.denoising_class_embed.
^decoder\.dec_score_head\.                  model.decoder.class_embed.
^decoder\.dec_bbox_head\.                   model.decoder.bbox_embed.
^decoder\.(?:decoder\.)?                    model.decoder.
\.cross_attn\.                              .encoder_attn.
^(model\.encoder\..+)\.norm2\.(\w+)$        \1.final_layer_norm.\2
^(model\.decoder\.layers\.\d+)\.norm2\.     \1.encoder_attn_layer_norm.
^(model\.decoder\.layers\.\d+)\.norm3\.     \1.final_layer_norm.
\.layers\.(\d+)\.norm1\.                    .layers.\1.self_attn_layer_norm.
\.layers\.(\d+)\.linear(1|2)\.              .layers.\1.fc\2.
""")
# From earlier versions of the package. Where there are two names, the first that the model has is
# taken: the two layers of a feed-forward network are called otherwise in D-FINE.
_EARLIER = _rules(r"""
\.self_attn\.out_proj\.                     .self_attn.o_proj.
^model\.encoder\.encoder\.(\d+)\.layers\.   model.encoder.aifi.\1.layers.
""")
_FEED_FORWARD = re.compile(r"\.layers\.(\d+)\.fc(1|2)\.")
_POINTS = re.compile(r"\.num_points_scale$")


def is_huggingface(model: nn.Module) -> bool:
    """Whether a model is one of the package, so that its file has the package's names."""
    return type(model).__module__.startswith("transformers.")


def is_realtime(names: Iterable[str]) -> bool:
    """Whether weights are those of RT-DETR or a descendant, under the names of anyone."""
    names = set(names)
    return is_of_authors(names) or {_CLASSES, _WIDTH} <= names


def is_of_authors(names: Iterable[str]) -> bool:
    """Whether weights have the names of the original projects of RT-DETR and D-FINE."""
    return set(_OF_THE_LINE) <= set(names)


def huggingface_state(state: State, model: nn.Module, source: str, *, strict: bool) -> State:
    """Weights of a real-time detector under the names of a model of the package.

    Args:
        state: by the names of the package, of its earlier versions, or of the original projects.
        model: the package's model.
        source: the file's name, for messages.
        strict: whether all of it has to fit; otherwise heads of other classes, and layers that only
            one of the two has, are left to be trained anew, with a warning.

    Raises:
        CheckpointError: the file is of another width, or with ``strict`` of other classes or
            another number of layers.
    """
    own = model.state_dict()
    if is_of_authors(state):
        _log.info("%s is recognised as a file of RT-DETR's or D-FINE's authors.", source)
        state = _joint(_from_authors(state))
    renamed = {_todays_name(name, own): value for name, value in state.items()}
    if len(renamed) < len(state):
        raise CheckpointError(
            f"{source} has several names for one weight: take the file as its authors published it."
        )
    _check_sizes(renamed, own, source, strict=strict)
    return renamed


def _from_authors(state: State) -> dict[str, torch.Tensor]:
    """The package's earlier names of the weights in a file of the original projects."""
    renamed = {}
    for name, value in state.items():
        if name in _CONSTANTS:
            continue
        for pattern, replacement in _ORIGINAL:
            name = pattern.sub(replacement, name)
        # D-FINE's reg_scale is a whole number there.
        renamed[name] = value if value.is_floating_point() or value.ndim != 1 else value.float()
    return renamed


def _joint(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Query, key and value, which the original projects have in one matrix, as three."""
    parts = {}
    for name, value in state.items():
        if match := _IN_PROJECTION.fullmatch(name):
            for kind, part in zip("qkv", value.chunk(3)):
                parts[f"{match[1]}{kind}_proj.{match[2]}"] = part
        else:
            parts[name] = value
    return parts


def _todays_name(name: str, own: State) -> str:
    """The name that the model has for a weight; the given one where it has none."""
    if name in own:
        return name
    today = name
    for pattern, replacement in _EARLIER:
        today = pattern.sub(replacement, today)
    found = [today, _POINTS.sub(".n_points_scale", today)]
    if match := _FEED_FORWARD.search(today):
        for layer in (f"mlp.fc{match[2]}", f"mlp.layers.{int(match[2]) - 1}"):
            found.append(_FEED_FORWARD.sub(f".layers.{match[1]}.{layer}.", today))
    return next((one for one in found if one in own), name)


def _check_sizes(state: State, own: State, source: str, *, strict: bool) -> None:
    """Refuse another width; refuse other classes or layers with ``strict``, and warn otherwise."""
    for option, (theirs, ours) in {
        "d_model": (rows(state, _WIDTH), rows(own, _WIDTH)),
        "decoder_layers": (_layers(state), _layers(own)),
        "num_classes": (rows(state, _CLASSES), rows(own, _CLASSES)),
    }.items():
        if not (theirs and ours) or theirs == ours:
            continue
        difference = f"{source} has {option}={theirs} and the model {ours}"
        if strict or option == "d_model":
            raise CheckpointError(
                f"{difference}; set that number in the model's config, or take a file of the same"
                " size."
            )
        _log.warning("%s: what fits is loaded, the rest is trained anew.", difference)


def _layers(state: State) -> int:
    return count_parts(state, "model.decoder.layers")
