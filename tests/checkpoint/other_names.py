"""Renaming from detrex's names of a detector to its authors' and to Hugging Face's.

Written apart from the package's tables, so that a mistake in one of them shows.
"""

import re

import torch

State = dict[str, torch.Tensor]

_SELF = {"query_content": "qcontent", "query_pos": "qpos", "key_content": "kcontent"}
_SELF |= {"key_pos": "kpos", "value": "v"}
_CROSS = _SELF | {"query_pos_sine": "qpos_sine"}


def apply(state: State, rules: list[tuple[str, str]]) -> State:
    """Every rule applied to every name, in order."""
    renamed = {}
    for name, value in state.items():
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        renamed[name] = value
    return renamed


def without(state: State, pattern: str) -> State:
    """The weights whose names do not match."""
    return {name: value for name, value in state.items() if not re.search(pattern, name)}


def dab_official(state: State) -> State:
    """DAB-DETR as its authors write it."""
    return apply(
        without(state, r"ffns\.0\.activation"),
        [
            (r"^anchor_box_embed", "refpoint_embed"),
            (r"post_norm_layer", "norm"),
            (r"attentions\.0\.attn\.", "self_attn."),
            (r"attentions\.0\.out_proj", "self_attn.out_proj"),
            (r"attentions\.1\.out_proj", "cross_attn.out_proj"),
            *((rf"attentions\.0\.{a}_proj", f"sa_{b}_proj") for a, b in _SELF.items()),
            *((rf"attentions\.1\.{a}_proj", f"ca_{b}_proj") for a, b in _CROSS.items()),
            (r"ffns\.0\.layers\.0\.0", "linear1"),
            (r"ffns\.0\.layers\.0\.1", "activation"),
            (r"ffns\.0\.layers\.1", "linear2"),
            (r"norms\.0", "norm1"),
            (r"norms\.1", "norm2"),
            (r"norms\.2", "norm3"),
        ],
    )


def dab_hugging_face(state: State) -> State:
    """DAB-DETR as transformers writes it, query, key and value apart."""
    renamed = apply(
        without(state, r"ffns\.0\.activation"),
        [
            (r"^input_proj", "model.input_projection"),
            (r"^anchor_box_embed", "model.query_refpoint_embeddings"),
            (r"^bbox_embed", "bbox_predictor"),
            (r"^transformer", "model"),
            (r"post_norm_layer", "layernorm"),
            (r"attentions\.0\.attn\.", "self_attn."),
            (r"attentions\.0\.out_proj", "self_attn.self_attn.output_proj"),
            (r"attentions\.1\.out_proj", "cross_attn.cross_attn.output_proj"),
            (r"attentions\.0\.(\w+)_proj", r"self_attn.self_attn_\1_proj"),
            (r"attentions\.1\.(\w+)_proj", r"cross_attn.cross_attn_\1_proj"),
            (r"encoder(.*)ffns\.0\.layers\.0\.0", r"encoder\1fc1"),
            (r"encoder(.*)ffns\.0\.layers\.0\.1", r"encoder\1activation_fn"),
            (r"encoder(.*)ffns\.0\.layers\.1", r"encoder\1fc2"),
            (r"ffns\.0\.layers\.0\.0", "mlp.fc1"),
            (r"ffns\.0\.layers\.0\.1", "mlp.activation_fn"),
            (r"ffns\.0\.layers\.1", "mlp.fc2"),
            (r"encoder(.*)norms\.0", r"encoder\1self_attn_layer_norm"),
            (r"encoder(.*)norms\.1", r"encoder\1final_layer_norm"),
            (r"norms\.0", "self_attn.self_attn_layer_norm"),
            (r"norms\.1", "cross_attn.cross_attn_layer_norm"),
            (r"norms\.2", "mlp.final_layer_norm"),
        ],
    )
    return split_projections(renamed)


def _levels(state: State) -> int:
    return len([name for name in state if re.fullmatch(r"neck\.convs\.\d+\.conv\.bias", name)])


def _extra(levels: int) -> tuple[str, str]:
    return r"^neck\.extra_convs\.0\.(conv|norm)", f"neck.convs.{levels}.\\1"


def deformable_official(state: State) -> State:
    """Deformable DETR in any form; a DINO's shared parts too."""
    return apply(
        state,
        [
            _extra(_levels(state)),
            (r"^neck\.convs\.(\d)\.conv", r"input_proj.\1.0"),
            (r"^neck\.convs\.(\d)\.norm", r"input_proj.\1.1"),
            (r"level_embeds", "level_embed"),
            (r"^query_embedding", "query_embed"),
            (r"attentions\.0\.attn\.", "self_attn."),
            (r"attentions\.0\.", "self_attn."),
            (r"attentions\.1\.", "cross_attn."),
            (r"ffns\.0\.layers\.0\.0", "linear1"),
            (r"ffns\.0\.layers\.1", "linear2"),
            (r"encoder(.*)norms\.0", r"encoder\1norm1"),
            (r"encoder(.*)norms\.1", r"encoder\1norm2"),
            (r"decoder(.*)norms\.0", r"decoder\1norm2"),
            (r"decoder(.*)norms\.1", r"decoder\1norm1"),
            (r"decoder(.*)norms\.2", r"decoder\1norm3"),
        ],
    )


def dino_official(state: State) -> State:
    """DINO as its authors write it: the encoder's heads have names of their own."""
    layers = 1 + max(int(m[1]) for m in map(re.compile(r"class_embed\.(\d+)").match, state) if m)
    last = layers - 1
    renamed = without(deformable_official(state), rf"decoder\.(class|bbox)_embed\.{last}\.")
    return apply(renamed, [(rf"^(class|bbox)_embed\.{last}\.", r"transformer.enc_out_\1_embed.")])


def deformable_hugging_face(state: State, *, old: bool = False) -> State:
    """Deformable DETR as transformers writes it today, or as the files on its hub are called."""
    mlp, output = ("", "out_proj") if old else ("mlp.", "o_proj")
    renamed = apply(
        state,
        [
            _extra(_levels(state)),
            (r"^neck\.convs\.(\d)\.conv", r"model.input_proj.\1.0"),
            (r"^neck\.convs\.(\d)\.norm", r"model.input_proj.\1.1"),
            (r"^query_embedding", "model.query_position_embeddings"),
            (r"^transformer\.level_embeds", "model.level_embed"),
            (r"^transformer", "model"),
            (r"attentions\.0\.attn\.out_proj", f"self_attn.{output}"),
            (r"attentions\.0\.attn\.", "self_attn."),
            (r"attentions\.0\.", "self_attn."),
            (r"attentions\.1\.", "encoder_attn."),
            (r"ffns\.0\.layers\.0\.0", f"{mlp}fc1"),
            (r"ffns\.0\.layers\.1", f"{mlp}fc2"),
            (r"norms\.0", "self_attn_layer_norm"),
            (r"encoder(.*)norms\.1", r"encoder\1final_layer_norm"),
            (r"norms\.1", "encoder_attn_layer_norm"),
            (r"norms\.2", "final_layer_norm"),
        ],
    )
    return split_projections(renamed)


def split_projections(state: State) -> State:
    """in_proj_weight into q_proj.weight, k_proj.weight, v_proj.weight."""
    split = {}
    for name, value in state.items():
        if "in_proj_" in name:
            before, end = name.split("in_proj_")
            for letter, part in zip("qkv", value.chunk(3), strict=True):
                split[f"{before}{letter}_proj.{end}"] = part.clone()
        else:
            split[name] = value
    return split
