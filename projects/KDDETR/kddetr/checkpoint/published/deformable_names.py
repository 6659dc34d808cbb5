"""What the weights of Deformable DETR and DINO are called by their authors, by detrex and by
Hugging Face. Where one weight has two names, the one of today's files stands first.
"""

from .names import Names
from .rows import Rows, decoder, encoder, ffn, mlp, multihead, norms, sampling, split_multihead

__all__ = [
    "DEFORMABLE_DETREX",
    "DEFORMABLE_HUGGING_FACE",
    "DEFORMABLE_OFFICIAL",
    "DINO_DETREX",
    "DINO_OFFICIAL",
    "TWO_STAGE_DETREX",
    "TWO_STAGE_HUGGING_FACE",
    "TWO_STAGE_OFFICIAL",
]


def _heads(theirs: str, index: str, class_head: str, box_head: str) -> Rows:
    """Some files write the heads once more below the decoder."""
    return [
        row
        for prefix in ("", f"{theirs}.decoder.")
        for row in (
            (f"{prefix}class_embed.{index}.*", f"{class_head}.*"),
            *mlp(f"{prefix}bbox_embed.{index}", box_head, 3),
        )
    ]


def _decoder_heads(theirs: str) -> Rows:
    return _heads(theirs, "{d}", "decoder.class_heads.{d}", "decoder.box_heads.{d}")


def _last_heads(theirs: str) -> Rows:
    """The encoder's, counted behind the decoder's."""
    proposals = "query_source.proposals"
    return _heads(theirs, "{D}", f"{proposals}.class_head", f"{proposals}.box_head")


def _projections(theirs: str) -> Rows:
    """All levels in one list, the extra ones last."""
    return [
        *((f"{theirs}.{{l}}.{i}.*", f"neck.levels.{{l}}.{i}.*") for i in range(2)),
        *((f"{theirs}.{{y}}.{i}.*", f"neck.extra.{{x}}.{i}.*") for i in range(2)),
    ]


_official_ffn = ffn("linear1", "linear2")
_official = [
    ("transformer.level_embed", "encoder.level_embedding"),
    *_projections("input_proj"),
    *encoder("transformer", sampling("self_attn", "attention")),
    *encoder("transformer", _official_ffn | norms("norm1", "norm2")),
    *decoder("transformer", multihead("self_attn", "self_attention")),
    *decoder("transformer", sampling("cross_attn", "cross_attention")),
    # The norm after self-attention is the second one there.
    *decoder("transformer", _official_ffn | norms("norm2", "norm1", "norm3")),
    *_decoder_heads("transformer"),
]

_detrex_ffn = ffn("ffns.0.layers.0.0", "ffns.0.layers.1")
_detrex = [
    ("transformer.level_embeds", "encoder.level_embedding"),
    *(
        row
        for i, part in enumerate(("conv", "norm"))
        for row in (
            (f"neck.convs.{{l}}.{part}.*", f"neck.levels.{{l}}.{i}.*"),
            (f"neck.extra_convs.{{x}}.{part}.*", f"neck.extra.{{x}}.{i}.*"),
        )
    ),
    *encoder("transformer", sampling("attentions.0", "attention")),
    *encoder("transformer", _detrex_ffn | norms("norms.0", "norms.1")),
    *decoder("transformer", multihead("attentions.0.attn", "self_attention")),
    *decoder("transformer", sampling("attentions.1", "cross_attention")),
    *decoder("transformer", _detrex_ffn | norms("norms.0", "norms.1", "norms.2")),
    *_decoder_heads("transformer"),
]

_hugging_face_ffn = ffn("mlp.fc1", "mlp.fc2") | ffn("fc1", "fc2")
_hugging_face = [
    ("model.level_embed", "encoder.level_embedding"),
    *_projections("model.input_proj"),
    *encoder("model", sampling("self_attn", "attention")),
    *encoder("model", _hugging_face_ffn | norms("self_attn_layer_norm", "final_layer_norm")),
    *decoder("model", split_multihead("self_attn", "self_attention", "o_proj", "out_proj")),
    *decoder("model", sampling("encoder_attn", "cross_attention")),
    *decoder("model", _hugging_face_ffn),
    *decoder("model", norms("self_attn_layer_norm", "encoder_attn_layer_norm", "final_layer_norm")),
    *_decoder_heads("model"),
]


def _one_stage(layers: Rows, theirs: str, table: str) -> Names:
    own = [
        (f"{table}.weight", "query_source.embedding.weight"),
        (f"{theirs}.reference_points.*", "query_source.reference.*"),
    ]
    return Names([*layers, *own], heads_beyond=0)


def _proposals(theirs: str) -> Rows:
    return [
        (f"{theirs}.enc_output.*", "query_source.proposals.output.*"),
        (f"{theirs}.enc_output_norm.*", "query_source.proposals.norm.*"),
    ]


def _two_stage(layers: Rows, theirs: str) -> Names:
    own = [
        (f"{theirs}.pos_trans.*", "query_source.embed.*"),
        (f"{theirs}.pos_trans_norm.*", "query_source.embed_norm.*"),
    ]
    return Names([*layers, *_proposals(theirs), *_last_heads(theirs), *own], heads_beyond=1)


DEFORMABLE_OFFICIAL = _one_stage(_official, "transformer", "query_embed")
DEFORMABLE_DETREX = _one_stage(_detrex, "transformer", "query_embedding")
DEFORMABLE_HUGGING_FACE = _one_stage(_hugging_face, "model", "model.query_position_embeddings")
TWO_STAGE_OFFICIAL = _two_stage(_official, "transformer")
TWO_STAGE_DETREX = _two_stage(_detrex, "transformer")
TWO_STAGE_HUGGING_FACE = _two_stage(_hugging_face, "model")

_dino = [
    *_proposals("transformer"),
    ("transformer.tgt_embed.weight", "query_source.content"),
    ("transformer.decoder.norm.*", "decoder.norm.*"),
    *mlp("transformer.decoder.ref_point_head", "decoder.position.embed", 2),
    ("label_enc.weight", "denoising.label_embedding.weight"),
]
DINO_OFFICIAL = Names(
    [
        *_official,
        *_dino,
        ("transformer.enc_out_class_embed.*", "query_source.proposals.class_head.*"),
        *mlp("transformer.enc_out_bbox_embed", "query_source.proposals.box_head", 3),
    ],
    heads_beyond=0,
)
DINO_DETREX = Names([*_detrex, *_dino, *_last_heads("transformer")], heads_beyond=1)
