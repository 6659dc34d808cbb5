"""What DAB-DETR's weights are called by its authors and KD-DETR's, by detrex and Hugging Face."""

from collections.abc import Sequence

from .names import Names
from .rows import Rows, decoder, encoder, ffn, mlp, multihead, norms, split_multihead

__all__ = [
    "DAB_DETR_DETREX",
    "DAB_DETR_HUGGING_FACE",
    "DAB_DETR_OFFICIAL",
    "KD_DETR_STUDENT",
]

_SELF = ("query_content", "query_position", "key_content", "key_position", "value", "output")
_CROSS = ("query_content", "query_sine", "key_content", "key_position", "value", "output")


def _attentions(
    theirs: str, self_names: Sequence[str], cross_names: Sequence[str], first: str
) -> Rows:
    """Names in the order of the two lists above; `first` is what only the first layer has."""
    rows = [
        *((a, f"self_attention.{b}") for a, b in zip(self_names, _SELF, strict=True)),
        *((a, f"cross_attention.{b}") for a, b in zip(cross_names, _CROSS, strict=True)),
    ]
    return [
        *decoder(theirs, {f"{a}.*": f"{b}.*" for a, b in rows}),
        (
            f"{theirs}.decoder.layers.0.{first}.*",
            "decoder.layers.0.cross_attention.query_position.*",
        ),
    ]


def _common(theirs: str, *, projection: str, anchors: str, norm: str, box_head: str) -> Rows:
    below = f"{theirs}.decoder"
    return [
        (f"{projection}.*", "neck.levels.0.0.*"),
        (f"{anchors}.weight", "query_source.anchors"),
        ("class_embed.*", "decoder.class_heads.0.*"),
        (f"{below}.{norm}.*", "decoder.norm.*"),
        *mlp(box_head, "decoder.box_heads.0", 3),
        *mlp(f"{below}.bbox_embed", "decoder.box_heads.0", 3),  # the same once more
        *mlp(f"{theirs}.encoder.query_scale", "encoder.position_scale", 2),
        *mlp(f"{below}.query_scale", "decoder.position.scale", 2),
        *mlp(f"{below}.ref_point_head", "decoder.position.embed", 2),
        *mlp(f"{below}.ref_anchor_head", "decoder.position.size", 2),
    ]


_official_ffn = ffn("linear1", "linear2", "activation")
_official = [
    *_common(
        "transformer",
        projection="input_proj",
        anchors="refpoint_embed",
        norm="norm",
        box_head="bbox_embed",
    ),
    *encoder("transformer", multihead("self_attn", "attention")),
    *encoder("transformer", _official_ffn | norms("norm1", "norm2")),
    *_attentions(
        "transformer",
        [
            "sa_qcontent_proj",
            "sa_qpos_proj",
            "sa_kcontent_proj",
            "sa_kpos_proj",
            "sa_v_proj",
            "self_attn.out_proj",
        ],
        [
            "ca_qcontent_proj",
            "ca_qpos_sine_proj",
            "ca_kcontent_proj",
            "ca_kpos_proj",
            "ca_v_proj",
            "cross_attn.out_proj",
        ],
        "ca_qpos_proj",
    ),
    *decoder("transformer", _official_ffn | norms("norm1", "norm2", "norm3")),
]
DAB_DETR_OFFICIAL = Names(_official)
# The student of the published code carries its teacher's anchors along.
KD_DETR_STUDENT = Names([*_official, ("aux_refpoints", "")])

_PROJECTIONS = ("query_content", "query_pos", "key_content", "key_pos", "value")
_CROSS_PROJECTIONS = ("query_content", "query_pos_sine", "key_content", "key_pos", "value")

# detrex's feed-forward knows its activation by two names.
_detrex_ffn = ffn("ffns.0.layers.0.0", "ffns.0.layers.1", "ffns.0.layers.0.1", "ffns.0.activation")
DAB_DETR_DETREX = Names(
    [
        *_common(
            "transformer",
            projection="input_proj",
            anchors="anchor_box_embed",
            norm="post_norm_layer",
            box_head="bbox_embed",
        ),
        *encoder("transformer", multihead("attentions.0.attn", "attention")),
        *encoder("transformer", _detrex_ffn | norms("norms.0", "norms.1")),
        *_attentions(
            "transformer",
            [f"attentions.0.{name}_proj" for name in (*_PROJECTIONS, "out")],
            [f"attentions.1.{name}_proj" for name in (*_CROSS_PROJECTIONS, "out")],
            "attentions.1.query_pos_proj",
        ),
        *decoder("transformer", _detrex_ffn | norms("norms.0", "norms.1", "norms.2")),
    ]
)

_hugging_face_ffn = ffn("mlp.fc1", "mlp.fc2", "mlp.activation_fn")
DAB_DETR_HUGGING_FACE = Names(
    [
        *_common(
            "model",
            projection="model.input_projection",
            anchors="model.query_refpoint_embeddings",
            norm="layernorm",
            box_head="bbox_predictor",
        ),
        *encoder("model", split_multihead("self_attn", "attention", "out_proj", "o_proj")),
        *encoder("model", ffn("fc1", "fc2", "activation_fn") | _hugging_face_ffn),
        *encoder("model", norms("self_attn_layer_norm", "final_layer_norm")),
        *_attentions(
            "model",
            [
                *(f"self_attn.self_attn_{name}_proj" for name in _PROJECTIONS),
                "self_attn.self_attn.output_proj",
            ],
            [
                *(f"cross_attn.cross_attn_{name}_proj" for name in _CROSS_PROJECTIONS),
                "cross_attn.cross_attn.output_proj",
            ],
            "cross_attn.cross_attn_query_pos_proj",
        ),
        *decoder(
            "model",
            _hugging_face_ffn
            | norms(
                "self_attn.self_attn_layer_norm",
                "cross_attn.cross_attn_layer_norm",
                "mlp.final_layer_norm",
            ),
        ),
    ]
)
