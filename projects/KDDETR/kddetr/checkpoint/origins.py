r"""Published detectors: how a file is recognised and renamed, and which settings its weights need.

A rule has three columns: where it applies (``-``: at the start of a name, ``L``: inside any layer,
``E``: inside those of the encoder, ``D``: of the decoder), the author's words as a regular
expression in which a dot stands for itself, and this project's words. Group 1 is the place, so the
groups of the expression start at \2. All rules of an origin are applied to every name, in order.
"""

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

Rules = tuple[tuple[str, str], ...]

_PLACES = {"-": "^()", "L": r"^((?:en|de)coder\.layers\.\d+\.)"}
_PLACES |= {"E": r"^(encoder\.layers\.\d+\.)", "D": r"^(decoder\.layers\.\d+\.)"}


def _rules(table: str) -> Rules:
    rows = (line.split() for line in table.strip().splitlines())
    return tuple(
        (_PLACES[place] + theirs.replace(".", r"\.") + r"(?=\.|$)", r"\1" + ours)
        for place, theirs, ours in rows
    )


# Everything outside the layers, for all authors. Here an MLP's ReLUs have numbers too, so layers.1
# becomes .2.
_OUTSIDE = _rules(r"""
- input_proj(?:ection)?.(weight|bias)                     neck.levels.0.0.\2
- (?:input_proj|neck.convs).(\d+).(?:0|conv)              neck.levels.\2.0
- (?:input_proj|neck.convs).(\d+).(?:1|norm)              neck.levels.\2.1
- neck.extra_convs.(\d+).conv                             neck.extra.\2.0
- neck.extra_convs.(\d+).norm                             neck.extra.\2.1
- level_embeds?                                           encoder.level_embedding
- ([\w.]*(?:scale|head|embed|predictor)(?:.\d+)?).layers.0   \2.0
- ([\w.]*(?:scale|head|embed|predictor)(?:.\d+)?).layers.1   \2.2
- ([\w.]*(?:scale|head|embed|predictor)(?:.\d+)?).layers.2   \2.4
- encoder.query_scale                                     encoder.position_scale
- decoder.query_scale                                     decoder.position.scale
- decoder.ref_point_head                                  decoder.position.embed
- decoder.ref_anchor_head                                 decoder.position.size
- decoder.(?:norm|post_norm_layer|layernorm)              decoder.norm
- (?:decoder.)?class_embed.(weight|bias)                  decoder.class_heads.0.\2
- (?:decoder.)?class_embed.(\d+)                          decoder.class_heads.\2
- (?:decoder.)?bbox_(?:embed|predictor).(\d.[a-z]+)       decoder.box_heads.0.\2
- (?:decoder.)?bbox_embed.(\d+.\d)                        decoder.box_heads.\2
- (?:refpoint|anchor_box|query_refpoint)_embed(?:dings)?.weight   query_source.anchors
- query_(?:embed|embedding|position_embeddings)           query_source.embedding
- reference_points                                        query_source.reference
- pos_trans                                               query_source.embed
- pos_trans_norm                                          query_source.embed_norm
- tgt_embed.weight                                        query_source.content
- enc_output                                              query_source.proposals.output
- enc_output_norm                                         query_source.proposals.norm
- enc_out_class_embed                                     query_source.proposals.class_head
- enc_out_bbox_embed                                      query_source.proposals.box_head
- label_enc                                               denoising.label_embedding
""")

_OFFICIAL = _OUTSIDE + _rules(r"""
L linear1                               feed_forward.inner
L linear2                               feed_forward.outer
L activation                            feed_forward.activation
E self_attn.(in_proj_\w+|out_proj)      attention.multihead.\2
E self_attn                             attention
E norm1                                 attention_norm
E norm2                                 feed_forward_norm
D norm3                                 feed_forward_norm
""")
_DETREX = _OUTSIDE + _rules(r"""
L ffns.0.layers.0.0                     feed_forward.inner
L ffns.0.layers.0.1                     feed_forward.activation
L ffns.0.activation                     feed_forward.activation
L ffns.0.layers.1                       feed_forward.outer
E attentions.0.attn                     attention.multihead
E attentions.0                          attention
E norms.0                               attention_norm
E norms.1                               feed_forward_norm
D norms.0                               self_norm
D norms.1                               cross_norm
D norms.2                               feed_forward_norm
""")
# Query, key and value are apart there; here they are the parts #0, #1 and #2 of one weight.
_HUGGING_FACE = _OUTSIDE + _rules(r"""
L (?:mlp.)?fc1                          feed_forward.inner
L (?:mlp.)?fc2                          feed_forward.outer
L (?:mlp.)?activation_fn                feed_forward.activation
L (?:mlp.)?final_layer_norm             feed_forward_norm
E self_attn.q_proj.(weight|bias)        attention.multihead.in_proj_\2#0
E self_attn.k_proj.(weight|bias)        attention.multihead.in_proj_\2#1
E self_attn.v_proj.(weight|bias)        attention.multihead.in_proj_\2#2
E self_attn.(?:out|o)_proj              attention.multihead.out_proj
E self_attn                             attention
E self_attn_layer_norm                  attention_norm
D (?:self_attn.)?self_attn_layer_norm   self_norm
D cross_attn.cross_attn_layer_norm      cross_norm
D encoder_attn_layer_norm               cross_norm
""")

_DAB_OFFICIAL = _OFFICIAL + _rules(r"""
D self_attn.out_proj                    self_attention.output
D cross_attn.out_proj                   cross_attention.output
D sa_(\w+)_proj                         self_attention.\2
D ca_(\w+)_proj                         cross_attention.\2
D (self|cross)_attention.qcontent       \2_attention.query_content
D (self|cross)_attention.qpos           \2_attention.query_position
D (self|cross)_attention.qpos_sine      \2_attention.query_sine
D (self|cross)_attention.kcontent       \2_attention.key_content
D (self|cross)_attention.kpos           \2_attention.key_position
D (self|cross)_attention.v              \2_attention.value
D norm1                                 self_norm
D norm2                                 cross_norm
""")
_DAB_WORDS = _rules(r"""
D (self|cross)_attention.query_pos      \2_attention.query_position
D (self|cross)_attention.query_pos_sine \2_attention.query_sine
D (self|cross)_attention.key_pos        \2_attention.key_position
D (self|cross)_attention.out(?:put)?    \2_attention.output
""")
_DAB_DETREX = (
    _DETREX
    + _rules(r"""
D attentions.0.(\w+)_proj               self_attention.\2
D attentions.1.(\w+)_proj               cross_attention.\2
""")
    + _DAB_WORDS
)
_DAB_HUGGING_FACE = (
    _HUGGING_FACE
    + _rules(r"""
D (self|cross)_attn.(?:self|cross)_attn(?:_|.)(\w+)_proj    \2_attention.\3
""")
    + _DAB_WORDS
)
# The norm after self-attention is the second one in the authors' project.
_DEFORMABLE_OFFICIAL = _OFFICIAL + _rules(r"""
D self_attn                             self_attention.multihead
D cross_attn                            cross_attention
D norm2                                 self_norm
D norm1                                 cross_norm
""")
_DEFORMABLE_DETREX = _DETREX + _rules(r"""
D attentions.0.attn                     self_attention.multihead
D attentions.1                          cross_attention
""")
_DEFORMABLE_HUGGING_FACE = _HUGGING_FACE + _rules(r"""
D self_attn.q_proj.(weight|bias)        self_attention.multihead.in_proj_\2#0
D self_attn.k_proj.(weight|bias)        self_attention.multihead.in_proj_\2#1
D self_attn.v_proj.(weight|bias)        self_attention.multihead.in_proj_\2#2
D self_attn.(?:out|o)_proj              self_attention.multihead.out_proj
D encoder_attn                          cross_attention
""")


_D, _P, _T = "DAB-DETR", "Deformable DETR", "two-stage Deformable DETR"
# The beginnings of the names of their configs in configs/detectors.
CONFIGS = {_D: "dab_detr", _P: "deformable_detr", _T: "deformable_detr_two_stage", "DINO": "dino"}


@dataclass(frozen=True)
class Recipe:
    """One set of settings that weights were trained with; no weight's shape shows them.

    Args:
        settings: as ``DetectionTransformer.settings`` has them.
        mark: what the names of such files contain, e.g. "24ep"; empty: nothing in particular.
    """

    settings: Mapping[str, float]
    mark: str = ""


@dataclass(frozen=True)
class Origin:
    """One detector as one project writes it.

    Args:
        detector: what it is.
        author: who wrote the file.
        identifying_names: names, separated by spaces, that only such a file has together.
        rules: from the file's names to this project's.
        recipes: the settings that its weights may need, the usual ones first.
    """

    detector: str
    author: str
    identifying_names: str
    rules: Rules = field(repr=False)
    recipes: tuple[Recipe, ...]

    def __str__(self) -> str:
        return f"{self.detector} of {self.author}"

    @property
    def encoder_head_is_last(self) -> bool:
        """Whether the heads of the encoder's proposals are numbered behind the decoder's.

        Those of the decoder then differ from layer to layer. Otherwise all layers may have one
        head, written once for each layer or only once (safetensors keep one of equal tensors).
        """
        return self.detector == _T or str(self) == "DINO of detrex"

    def rename(self, name: str) -> str:
        """This project's name of a weight."""
        return _renamed(name, self.rules)


@functools.cache  # all files of an origin have the same names, and there are fifty rules
def _renamed(name: str, rules: Rules) -> str:
    name = re.sub(r"^(?:transformer|model)\.", "", name)
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def _recipe(temperature: float, offset: float, eps: float, mark: str = "", **more: float) -> Recipe:
    settings = {"temperature": temperature, "offset": offset, "eps": eps, **more}
    return Recipe({**settings, "backbone.dilation": mark == "dc5"}, mark)


def _dab(eps: float) -> tuple[Recipe, ...]:
    """R50-DC5 was trained with another temperature than all others, R101-DC5 included."""
    kinds = ((20.0, ""), (10.0, "dc5"), (20.0, "dc5"))
    return tuple(_recipe(t, 0.0, eps, mark, anchor_temperature=10000.0) for t, mark in kinds)


def _deformable(eps: float) -> tuple[Recipe, ...]:
    return _recipe(10000.0, -0.5, eps), _recipe(10000.0, -0.5, eps, "dc5")


_A, _X, _H = "its authors' project", "detrex", "Hugging Face"
_DAB_NAMES = "refpoint_embed.weight input_proj.weight"
_REFERENCE, _TRANS = "transformer.reference_points.weight", "transformer.pos_trans.weight"
_CONTENT, _LEVEL = "transformer.tgt_embed.weight", "transformer.level_embed"
_HF_PLAIN = "model.reference_points.weight model.query_position_embeddings.weight"
_DINO_REX = (_recipe(10000.0, -0.5, 1e-3, "12ep"), _recipe(20.0, 0.0, 1e-3, "24ep"))

# By their names, in the order in which a file is tried. The student of the published KD-DETR code
# also contains its teacher's anchors. Hugging Face's DAB-DETR computes with an eps of 1e-5 what its
# authors trained with 1e-3, so both values of eps are accepted.
ORIGINS = {
    str(origin): origin
    for origin in (
        Origin(_D, "the KD-DETR project", f"{_DAB_NAMES} aux_refpoints", _DAB_OFFICIAL, _dab(1e-3)),
        Origin(_D, _A, _DAB_NAMES, _DAB_OFFICIAL, _dab(1e-3)),
        Origin(_D, _X, "anchor_box_embed.weight input_proj.weight", _DAB_DETREX, _dab(1e-3)),
        Origin(
            _D,
            _H,
            "model.query_refpoint_embeddings.weight",
            _DAB_HUGGING_FACE,
            (*_dab(1e-3), *_dab(1e-5)),
        ),
        Origin(_P, _A, f"{_REFERENCE} query_embed.weight", _DEFORMABLE_OFFICIAL, _deformable(1e-5)),
        Origin(
            _P, _X, f"{_REFERENCE} query_embedding.weight", _DEFORMABLE_DETREX, _deformable(1e-3)
        ),
        Origin(_P, _H, _HF_PLAIN, _DEFORMABLE_HUGGING_FACE, _deformable(1e-5)),
        Origin(_T, _A, f"{_TRANS} {_LEVEL}", _DEFORMABLE_OFFICIAL, _deformable(1e-5)),
        Origin(_T, _X, f"{_TRANS} {_LEVEL}s", _DEFORMABLE_DETREX, _deformable(1e-3)),
        Origin(_T, _H, "model.pos_trans.weight", _DEFORMABLE_HUGGING_FACE, _deformable(1e-5)),
        Origin("DINO", _A, f"{_CONTENT} {_LEVEL}", _DEFORMABLE_OFFICIAL, (_recipe(20, 0, 1e-3),)),
        Origin("DINO", _X, f"{_CONTENT} {_LEVEL}s", _DEFORMABLE_DETREX, _DINO_REX),
    )
}
