"""Names of published detection-transformer weights, turned into this project's.

Each table is a list of (pattern, replacement); a name is rewritten by the first pattern that
matches it whole. Names are facts of the projects that chose them.
"""

import re
from collections.abc import Mapping, Sequence
from typing import TypeVar

__all__ = ["DAB_DETR_DETREX", "DAB_DETR_OFFICIAL", "DEFORMABLE_DETREX", "rename"]

Rules = Sequence[tuple[str, str]]
Value = TypeVar("Value")


def _mlp(source: str, target: str) -> Rules:
    """A three-layer MLP at most: linear layers there are counted, here ReLUs lie between them."""
    return [
        (rf"{source}\.layers\.{i}\.(?P<end>weight|bias)", rf"{target}.{2 * i}.\g<end>")
        for i in range(3)
    ]


_L = r"(?P<l>\d+)"
_END = r"(?P<end>.+)"
_ENC = rf"transformer\.encoder\.layers\.{_L}"
_DEC = rf"transformer\.decoder\.layers\.{_L}"

_DETREX_FFN = {
    r"ffns\.0\.layers\.0\.0": "feed_forward.inner",
    r"ffns\.0\.layers\.0\.1": "feed_forward.activation",
    r"ffns\.0\.activation": "feed_forward.activation",
    r"ffns\.0\.layers\.1": "feed_forward.outer",
}
_OFFICIAL_FFN = {
    r"linear1": "feed_forward.inner",
    r"activation": "feed_forward.activation",
    r"linear2": "feed_forward.outer",
}
_DETREX_NORMS = [r"norms\.0", r"norms\.1", r"norms\.2"]
_OFFICIAL_NORMS = ["norm1", "norm2", "norm3"]


def _layers(ffn: Mapping[str, str], norms: Sequence[str]) -> Rules:
    encoder = {norms[0]: "attention_norm", norms[1]: "feed_forward_norm", **ffn}
    decoder = {
        norms[0]: "self_norm",
        norms[1]: "cross_norm",
        norms[2]: "feed_forward_norm",
        **ffn,
    }
    return [
        *(
            (rf"{_ENC}\.{a}\.{_END}", rf"encoder.layers.\g<l>.{b}.\g<end>")
            for a, b in encoder.items()
        ),
        *(
            (rf"{_DEC}\.{a}\.{_END}", rf"decoder.layers.\g<l>.{b}.\g<end>")
            for a, b in decoder.items()
        ),
    ]


def _conditional(self_names: Mapping[str, str], cross_names: Mapping[str, str]) -> Rules:
    return [
        *(
            (rf"{_DEC}\.{a}\.{_END}", rf"decoder.layers.\g<l>.self_attention.{b}.\g<end>")
            for a, b in self_names.items()
        ),
        *(
            (rf"{_DEC}\.{a}\.{_END}", rf"decoder.layers.\g<l>.cross_attention.{b}.\g<end>")
            for a, b in cross_names.items()
        ),
    ]


def _dab_common(anchors: str, norm: str) -> Rules:
    return [
        (rf"input_proj\.{_END}", r"neck.levels.0.0.\g<end>"),
        (rf"{anchors}\.weight", "query_source.anchors"),
        (rf"class_embed\.{_END}", r"decoder.class_heads.0.\g<end>"),
        (rf"transformer\.decoder\.{norm}\.{_END}", r"decoder.norm.\g<end>"),
        *_mlp(r"(?:transformer\.decoder\.)?bbox_embed", "decoder.box_heads.0"),
        *_mlp(r"transformer\.encoder\.query_scale", "encoder.position_scale"),
        *_mlp(r"transformer\.decoder\.query_scale", "decoder.position.scale"),
        *_mlp(r"transformer\.decoder\.ref_point_head", "decoder.position.embed"),
        *_mlp(r"transformer\.decoder\.ref_anchor_head", "decoder.position.size"),
    ]


DAB_DETR_DETREX: Rules = [
    *_dab_common("anchor_box_embed", "post_norm_layer"),
    (rf"{_ENC}\.attentions\.0\.attn\.{_END}", r"encoder.layers.\g<l>.attention.multihead.\g<end>"),
    *_conditional(
        {
            r"attentions\.0\.query_content_proj": "query_content",
            r"attentions\.0\.query_pos_proj": "query_position",
            r"attentions\.0\.key_content_proj": "key_content",
            r"attentions\.0\.key_pos_proj": "key_position",
            r"attentions\.0\.value_proj": "value",
            r"attentions\.0\.out_proj": "output",
        },
        {
            r"attentions\.1\.query_content_proj": "query_content",
            r"attentions\.1\.query_pos_proj": "query_position",
            r"attentions\.1\.query_pos_sine_proj": "query_sine",
            r"attentions\.1\.key_content_proj": "key_content",
            r"attentions\.1\.key_pos_proj": "key_position",
            r"attentions\.1\.value_proj": "value",
            r"attentions\.1\.out_proj": "output",
        },
    ),
    *_layers(_DETREX_FFN, _DETREX_NORMS),
]

DAB_DETR_OFFICIAL: Rules = [
    *_dab_common("refpoint_embed", "norm"),
    (rf"{_ENC}\.self_attn\.{_END}", r"encoder.layers.\g<l>.attention.multihead.\g<end>"),
    *_conditional(
        {
            "sa_qcontent_proj": "query_content",
            "sa_qpos_proj": "query_position",
            "sa_kcontent_proj": "key_content",
            "sa_kpos_proj": "key_position",
            "sa_v_proj": "value",
            r"self_attn\.out_proj": "output",
        },
        {
            "ca_qcontent_proj": "query_content",
            "ca_qpos_proj": "query_position",
            "ca_qpos_sine_proj": "query_sine",
            "ca_kcontent_proj": "key_content",
            "ca_kpos_proj": "key_position",
            "ca_v_proj": "value",
            r"cross_attn\.out_proj": "output",
        },
    ),
    *_layers(_OFFICIAL_FFN, _OFFICIAL_NORMS),
]

_HEAD = rf"(?:transformer\.decoder\.)?bbox_embed\.{_L}"

DEFORMABLE_DETREX: Rules = [
    (rf"neck\.convs\.{_L}\.conv\.{_END}", r"neck.levels.\g<l>.0.\g<end>"),
    (rf"neck\.convs\.{_L}\.norm\.{_END}", r"neck.levels.\g<l>.1.\g<end>"),
    (rf"neck\.extra_convs\.{_L}\.conv\.{_END}", r"neck.extra.\g<l>.0.\g<end>"),
    (rf"neck\.extra_convs\.{_L}\.norm\.{_END}", r"neck.extra.\g<l>.1.\g<end>"),
    (r"transformer\.level_embeds", "encoder.level_embedding"),
    (r"query_embedding\.weight", "query_source.embedding.weight"),
    (rf"transformer\.reference_points\.{_END}", r"query_source.reference.\g<end>"),
    (rf"class_embed\.{_L}\.{_END}", r"decoder.class_heads.\g<l>.\g<end>"),
    *_mlp(_HEAD, r"decoder.box_heads.\g<l>"),
    (rf"{_ENC}\.attentions\.0\.{_END}", r"encoder.layers.\g<l>.attention.\g<end>"),
    (
        rf"{_DEC}\.attentions\.0\.attn\.{_END}",
        r"decoder.layers.\g<l>.self_attention.multihead.\g<end>",
    ),
    (rf"{_DEC}\.attentions\.1\.{_END}", r"decoder.layers.\g<l>.cross_attention.\g<end>"),
    *_layers(_DETREX_FFN, _DETREX_NORMS),
]


def rename(state: Mapping[str, Value], rules: Rules) -> dict[str, Value]:
    """The same values under this project's names.

    Raises:
        KeyError: names that no rule knows, all of them.
    """
    renamed: dict[str, Value] = {}
    unknown = []
    for name, value in state.items():
        for pattern, replacement in rules:
            match = re.fullmatch(pattern, name)
            if match:
                renamed[match.expand(replacement)] = value
                break
        else:
            unknown.append(name)
    if unknown:
        raise KeyError(f"No rule for {len(unknown)} names: {', '.join(unknown)}")
    return renamed
