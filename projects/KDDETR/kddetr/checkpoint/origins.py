"""Where a detector's file can come from: names that tell, rules that rename, settings it needs.

A rule is a regular expression and its replacement. Every rule of an origin is applied to every name
of a file, in order. Where a weight has several names (in older files, or twice in one file), each of
them becomes the same name here.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

Rule = tuple[str, str | Callable[[re.Match], str]]


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
        tells: names that only such a file has together.
        rules: from the file's names to this project's.
        recipes: the settings that its weights may need, the usual ones first.
        encoder_head_is_last: the heads of the encoder's proposals are numbered behind the decoder's,
            which then differ from layer to layer. Otherwise all layers may have one head, written
            once for each layer or only once (safetensors keep one of equal tensors).
    """

    detector: str
    author: str
    tells: tuple[str, ...]
    rules: tuple[Rule, ...] = field(repr=False)
    recipes: tuple[Recipe, ...]
    encoder_head_is_last: bool = False

    def __str__(self) -> str:
        return f"{self.detector} of {self.author}"

    @property
    def config(self) -> str:
        """Beginning of the name of a config for it in configs/detectors: `deformable_detr`."""
        first, *rest = self.detector.replace("-", "_").lower().split()
        return "_".join([*rest, first] if first == "two_stage" else [first, *rest])

    def rename(self, name: str) -> str:
        """This project's name of a weight; empty for one that is dropped."""
        for pattern, replacement in self.rules:
            name = re.sub(pattern, replacement, name)
        return name


# Everything outside the layers, by whatever name an author gave it.
_OUTSIDE: tuple[Rule, ...] = (
    (r"^(?:transformer|model)\.", ""),
    # An MLP's linear layers are counted there; here the ReLUs between them count too.
    (
        r"((?:query_scale|ref_\w+_head|bbox_(?:embed|predictor)(?:\.\d+)?)\.)layers\.(\d)\.",
        lambda match: f"{match[1]}{2 * int(match[2])}.",
    ),
    (r"^input_proj(?:ection)?\.(weight|bias)$", r"neck.levels.0.0.\1"),
    (r"^(?:input_proj|neck\.convs)\.(\d+)\.(?:0|conv)\.", r"neck.levels.\1.0."),
    (r"^(?:input_proj|neck\.convs)\.(\d+)\.(?:1|norm)\.", r"neck.levels.\1.1."),
    (r"^neck\.extra_convs\.(\d+)\.conv\.", r"neck.extra.\1.0."),
    (r"^neck\.extra_convs\.(\d+)\.norm\.", r"neck.extra.\1.1."),
    (r"^level_embeds?$", "encoder.level_embedding"),
    (r"^encoder\.query_scale\.", "encoder.position_scale."),
    (r"^decoder\.query_scale\.", "decoder.position.scale."),
    (r"^decoder\.ref_point_head\.", "decoder.position.embed."),
    (r"^decoder\.ref_anchor_head\.", "decoder.position.size."),
    (r"^decoder\.(?:norm|post_norm_layer|layernorm)\.", "decoder.norm."),
    # Heads may be written once more below the decoder; those without a number serve all layers.
    (r"^(?:decoder\.)?class_embed\.(?=weight|bias)", "decoder.class_heads.0."),
    (r"^(?:decoder\.)?class_embed\.(?=\d)", "decoder.class_heads."),
    (r"^(?:decoder\.)?bbox_(?:embed|predictor)\.(?=\d\.[a-z])", "decoder.box_heads.0."),
    (r"^(?:decoder\.)?bbox_embed\.(?=\d+\.\d)", "decoder.box_heads."),
    (r"^(?:refpoint|anchor_box|query_refpoint)_embed(?:dings)?\.weight$", "query_source.anchors"),
    (r"^query_(?:embed|embedding|position_embeddings)\.", "query_source.embedding."),
    (r"^reference_points\.", "query_source.reference."),
    (r"^pos_trans(_norm)?\.", r"query_source.embed\1."),
    (r"^tgt_embed\.weight$", "query_source.content"),
    (r"^enc_output\.", "query_source.proposals.output."),
    (r"^enc_output_norm\.", "query_source.proposals.norm."),
    (r"^enc_out_class_embed\.", "query_source.proposals.class_head."),
    (r"^enc_out_bbox_embed\.", "query_source.proposals.box_head."),
    (r"^label_enc\.", "denoising.label_embedding."),
)


def _inside(part: str, pairs: Mapping[str, str]) -> tuple[Rule, ...]:
    """Rules for names inside the layers of the encoder, the decoder or both ("encoder|decoder").

    Group 1 is the layer, so that the pairs' own groups are counted from 2.
    """
    return tuple((rf"^((?:{part})\.layers\.\d+)\.{a}", rf"\1.{b}") for a, b in pairs.items())


def _split(part: str, attention: str) -> Rule:
    """Hugging Face has query, key and value apart; here they are the parts #0, #1, #2 of one weight,
    one below the other.
    """
    return (
        rf"^({part}\.layers\.\d+)\.self_attn\.([qkv])_proj\.(weight|bias)$",
        lambda m: f"{m[1]}.{attention}.multihead.in_proj_{m[3]}#{'qkv'.index(m[2])}",
    )


_BOTH = "encoder|decoder"
_OFFICIAL = (
    *_inside(_BOTH, {r"linear1\.": "feed_forward.inner.", r"linear2\.": "feed_forward.outer."}),
    *_inside(_BOTH, {r"activation\.": "feed_forward.activation."}),
    *_inside("encoder", {r"self_attn\.(in_proj_|out_proj\.)": r"attention.multihead.\2"}),
    *_inside("encoder", {r"self_attn\.": "attention."}),
    *_inside("encoder", {r"norm1\.": "attention_norm.", r"norm2\.": "feed_forward_norm."}),
    *_inside("decoder", {r"norm3\.": "feed_forward_norm."}),
)
_DETREX = (
    *_inside(_BOTH, {r"ffns\.0\.layers\.0\.0\.": "feed_forward.inner."}),
    *_inside(_BOTH, {r"ffns\.0\.(?:layers\.0\.1|activation)\.": "feed_forward.activation."}),
    *_inside(_BOTH, {r"ffns\.0\.layers\.1\.": "feed_forward.outer."}),
    *_inside("encoder", {r"attentions\.0\.attn\.": "attention.multihead."}),
    *_inside("encoder", {r"attentions\.0\.": "attention."}),
    *_inside("encoder", {r"norms\.0\.": "attention_norm.", r"norms\.1\.": "feed_forward_norm."}),
    *_inside("decoder", {r"norms\.0\.": "self_norm.", r"norms\.1\.": "cross_norm."}),
    *_inside("decoder", {r"norms\.2\.": "feed_forward_norm."}),
)
_HUGGING_FACE = (
    *_inside(_BOTH, {r"(?:mlp\.)?fc1\.": "feed_forward.inner."}),
    *_inside(_BOTH, {r"(?:mlp\.)?fc2\.": "feed_forward.outer."}),
    *_inside(_BOTH, {r"(?:mlp\.)?activation_fn\.": "feed_forward.activation."}),
    *_inside(_BOTH, {r"(?:mlp\.)?final_layer_norm\.": "feed_forward_norm."}),
    _split("encoder", "attention"),
    *_inside("encoder", {r"self_attn\.(?:out|o)_proj\.": "attention.multihead.out_proj."}),
    *_inside("encoder", {r"self_attn\.": "attention."}),
    *_inside("encoder", {r"self_attn_layer_norm\.": "attention_norm."}),
    *_inside("decoder", {r"(?:self_attn\.)?self_attn_layer_norm\.": "self_norm."}),
    *_inside("decoder", {r"(?:cross_attn\.cross|encoder)_attn_layer_norm\.": "cross_norm."}),
)

# The projections of DAB-DETR's attention: the words of its authors, of the others, and ours.
_PROJECTIONS = (
    ("qcontent", "query_content", "query_content"),
    ("qpos", "query_pos", "query_position"),
    ("qpos_sine", "query_pos_sine", "query_sine"),
    ("kcontent", "key_content", "key_content"),
    ("kpos", "key_pos", "key_position"),
    ("v", "value", "value"),
)


def _dab(self_attention: str, cross_attention: str, word: int) -> tuple[Rule, ...]:
    """The decoder's attention, with ``{}`` in place of the projection."""
    return tuple(
        rule
        for theirs, ours in ((self_attention, "self"), (cross_attention, "cross"))
        for names in _PROJECTIONS
        for rule in _inside(
            "decoder", {theirs.format(names[word]): f"{ours}_attention.{names[2]}."}
        )
    )


_DAB_OFFICIAL = (
    *_OUTSIDE,
    *_OFFICIAL,
    *_dab(r"sa_{}_proj\.", r"ca_{}_proj\.", 0),
    *_inside("decoder", {r"self_attn\.out_proj\.": "self_attention.output."}),
    *_inside("decoder", {r"cross_attn\.out_proj\.": "cross_attention.output."}),
    *_inside("decoder", {r"norm1\.": "self_norm.", r"norm2\.": "cross_norm."}),
)
_DAB_DETREX = (
    *_OUTSIDE,
    *_DETREX,
    *_dab(r"attentions\.0\.{}_proj\.", r"attentions\.1\.{}_proj\.", 1),
    *_inside("decoder", {r"attentions\.0\.out_proj\.": "self_attention.output."}),
    *_inside("decoder", {r"attentions\.1\.out_proj\.": "cross_attention.output."}),
)
_DAB_HUGGING_FACE = (
    *_OUTSIDE,
    *_HUGGING_FACE,
    *_dab(r"self_attn\.self_attn_{}_proj\.", r"cross_attn\.cross_attn_{}_proj\.", 1),
    *_inside("decoder", {r"(self|cross)_attn\.\2_attn\.output_proj\.": r"\2_attention.output."}),
)
_DEFORMABLE_OFFICIAL = (
    *_OUTSIDE,
    *_OFFICIAL,
    *_inside("decoder", {r"self_attn\.": "self_attention.multihead."}),
    *_inside("decoder", {r"cross_attn\.": "cross_attention."}),
    # The norm after self-attention is the second one there.
    *_inside("decoder", {r"norm2\.": "self_norm.", r"norm1\.": "cross_norm."}),
)
_DEFORMABLE_DETREX = (
    *_OUTSIDE,
    *_DETREX,
    *_inside("decoder", {r"attentions\.0\.attn\.": "self_attention.multihead."}),
    *_inside("decoder", {r"attentions\.1\.": "cross_attention."}),
)
_DEFORMABLE_HUGGING_FACE = (
    *_OUTSIDE,
    *_HUGGING_FACE,
    _split("decoder", "self_attention"),
    *_inside("decoder", {r"self_attn\.(?:out|o)_proj\.": "self_attention.multihead.out_proj."}),
    *_inside("decoder", {r"encoder_attn\.": "cross_attention."}),
)


def _recipe(temperature: float, offset: float, eps: float, mark: str = "", **more: float) -> Recipe:
    settings = {"temperature": temperature, "offset": offset, "eps": eps, **more}
    return Recipe({**settings, "backbone.dilation": mark == "dc5"}, mark)


def _dab_recipes(eps: float) -> tuple[Recipe, ...]:
    """R50-DC5 was trained with a temperature of its own; R101-DC5 was not."""
    settings = ((20.0, ""), (10.0, "dc5"), (20.0, "dc5"))
    return tuple(_recipe(t, 0.0, eps, mark, anchor_temperature=10000.0) for t, mark in settings)


def _deformable_recipes(eps: float) -> tuple[Recipe, ...]:
    return _recipe(10000.0, -0.5, eps), _recipe(10000.0, -0.5, eps, "dc5")


_AUTHORS, _REX, _FACE = "its authors' project", "detrex", "Hugging Face"
_PLAIN, _TWO_STAGE = "Deformable DETR", "two-stage Deformable DETR"


def _origin(
    detector: str, author: str, tells: str, rules: tuple[Rule, ...], recipes: tuple[Recipe, ...]
) -> Origin:
    last = detector == _TWO_STAGE or (detector, author) == ("DINO", _REX)
    return Origin(detector, author, tuple(tells.split()), rules, recipes, last)


DAB_DETR_OFFICIAL = _origin(
    "DAB-DETR",
    _AUTHORS,
    "refpoint_embed.weight input_proj.weight",
    _DAB_OFFICIAL,
    _dab_recipes(1e-3),
)
# The student of the published KD-DETR code carries its teacher's anchors along.
KD_DETR_STUDENT = _origin(
    "DAB-DETR",
    "the KD-DETR project",
    "refpoint_embed.weight input_proj.weight aux_refpoints",
    ((r"^aux_refpoints$", ""), *_DAB_OFFICIAL),
    _dab_recipes(1e-3),
)
DAB_DETR_DETREX = _origin(
    "DAB-DETR",
    _REX,
    "anchor_box_embed.weight input_proj.weight",
    _DAB_DETREX,
    _dab_recipes(1e-3),
)
# Hugging Face computes with 1e-5 what its authors trained with 1e-3: either serves.
DAB_DETR_HUGGING_FACE = _origin(
    "DAB-DETR",
    _FACE,
    "model.query_refpoint_embeddings.weight",
    _DAB_HUGGING_FACE,
    (*_dab_recipes(1e-3), *_dab_recipes(1e-5)),
)
DEFORMABLE_OFFICIAL = _origin(
    _PLAIN,
    _AUTHORS,
    "transformer.reference_points.weight query_embed.weight",
    _DEFORMABLE_OFFICIAL,
    _deformable_recipes(1e-5),
)
DEFORMABLE_DETREX = _origin(
    _PLAIN,
    _REX,
    "transformer.reference_points.weight query_embedding.weight",
    _DEFORMABLE_DETREX,
    _deformable_recipes(1e-3),
)
DEFORMABLE_HUGGING_FACE = _origin(
    _PLAIN,
    _FACE,
    "model.reference_points.weight model.query_position_embeddings.weight",
    _DEFORMABLE_HUGGING_FACE,
    _deformable_recipes(1e-5),
)
TWO_STAGE_OFFICIAL = _origin(
    _TWO_STAGE,
    _AUTHORS,
    "transformer.pos_trans.weight transformer.level_embed",
    _DEFORMABLE_OFFICIAL,
    _deformable_recipes(1e-5),
)
TWO_STAGE_DETREX = _origin(
    _TWO_STAGE,
    _REX,
    "transformer.pos_trans.weight transformer.level_embeds",
    _DEFORMABLE_DETREX,
    _deformable_recipes(1e-3),
)
TWO_STAGE_HUGGING_FACE = _origin(
    _TWO_STAGE,
    _FACE,
    "model.pos_trans.weight",
    _DEFORMABLE_HUGGING_FACE,
    _deformable_recipes(1e-5),
)
DINO_OFFICIAL = _origin(
    "DINO",
    _AUTHORS,
    "transformer.tgt_embed.weight transformer.level_embed",
    _DEFORMABLE_OFFICIAL,
    (_recipe(20.0, 0.0, 1e-3),),
)
DINO_DETREX = _origin(
    "DINO",
    _REX,
    "transformer.tgt_embed.weight transformer.level_embeds",
    _DEFORMABLE_DETREX,
    (_recipe(10000.0, -0.5, 1e-3, "12ep"), _recipe(20.0, 0.0, 1e-3, "24ep")),
)

# In the order in which a file is tried: the more special first.
ORIGINS = (
    KD_DETR_STUDENT,
    DAB_DETR_OFFICIAL,
    DAB_DETR_DETREX,
    DAB_DETR_HUGGING_FACE,
    DEFORMABLE_OFFICIAL,
    DEFORMABLE_DETREX,
    DEFORMABLE_HUGGING_FACE,
    TWO_STAGE_OFFICIAL,
    TWO_STAGE_DETREX,
    TWO_STAGE_HUGGING_FACE,
    DINO_OFFICIAL,
    DINO_DETREX,
)
