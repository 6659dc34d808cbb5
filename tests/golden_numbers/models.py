"""Detectors of the sizes a golden file was made with, carrying its weights."""

import torch
from detectron2.layers import ShapeSpec
from torch import nn

from kddetr.checkpoint.origins import ORIGINS
from kddetr.checkpoint.published import rename
from kddetr.detectors import (
    DetectionTransformer,
    HungarianMatcher,
    SetCriterion,
    dab_detr,
    deformable_detr,
    dino,
)
from kddetr.detectors.detr.denoising import Noise
from tests.golden_numbers.files import Golden


class GivenFeatures(nn.Module):
    """In place of a backbone: only says how wide the given features are."""

    def __init__(self, **channels: int) -> None:
        super().__init__()
        self.channels = channels

    def output_shape(self) -> dict[str, ShapeSpec]:
        return {name: ShapeSpec(channels=c) for name, c in self.channels.items()}


def criterion(config: dict) -> SetCriterion:
    """Unweighted, so that every term can be compared by itself."""
    matcher = config.get("matcher", {})
    options = {k: matcher[k] for k in ("alpha", "gamma") if k in matcher}
    return SetCriterion(
        matcher=HungarianMatcher(
            class_cost=matcher.get("cls", 2.0),
            box_cost=matcher.get("l1", 5.0),
            giou_cost=matcher.get("giou", 2.0),
            eps=config["iou_eps"],
            **options,
        ),
        class_weight=1.0,
        box_weight=1.0,
        giou_weight=1.0,
        eps=config["iou_eps"],
        **options,
    )


def golden_dab_detr(z: Golden) -> DetectionTransformer:
    """The whole detector of ``dab_detr.npz``."""
    c = z.config
    assert c["modulate_hw_attn"] and c["shared_bbox_head"] and not c["num_patterns"]
    model = sized_dab_detr(
        c,
        channels=c["in_channels"],
        decoder_layers=c["dec_layers"],
        dropout=c["dropout"],
        activation=c["activation"],
        anchor_temperature=c["anchor_temperature"],
        num_detections=c["topk"],
    )
    return filled(model, rename(z.state(), ORIGINS["DAB-DETR of detrex"]))


def golden_step_detector(z: Golden, role: str) -> DetectionTransformer:
    """Teacher or student of the complete distillation step."""
    c = z.config
    model = sized_dab_detr(
        c, channels=c[f"{role}_channels"], decoder_layers=c[f"{role}_dec_layers"]
    )
    return filled(model, rename(z.state(f"sd_{role}"), ORIGINS["DAB-DETR of its authors' project"]))


def sized_dab_detr(c: dict, *, channels: int, **options) -> DetectionTransformer:
    """A DAB-DETR of the sizes that both kinds of file name alike."""
    check_fixed(c)
    return dab_detr(
        backbone=GivenFeatures(res5=channels),
        num_classes=c["classes"],
        num_queries=c["queries"],
        embed_dim=c["d_model"],
        num_heads=c["heads"],
        feedforward_dim=c["ffn"],
        encoder_layers=c["enc_layers"],
        temperature=c["temperature"],
        offset=c["pos_offset"],
        eps=c["inverse_sigmoid_eps"],
        criterion=criterion(c),
        **options,
    )


def check_fixed(config: dict) -> None:
    """What no published model varies and no parameter of ours sets: a file that does says so."""
    assert config.get("pos_eps", 1e-6) == 1e-6
    assert config["sine_feats_per_coord"] == config["d_model"] // 2


def golden_deformable_detr(z: Golden) -> DetectionTransformer:
    """The whole detector of a ``deformable_detr_*.npz``."""
    c = z.config
    refined = "two_stage" if c["two_stage"] else "refine"
    variant = refined if c["with_box_refine"] else "plain"
    model = deformable_detr(**deformable_sizes(z), variant=variant)
    names = (
        ORIGINS["two-stage Deformable DETR of detrex"]
        if c["two_stage"]
        else ORIGINS["Deformable DETR of detrex"]
    )
    return filled(model, one_set_of_heads(rename(z.state(), names), model))


def golden_dino(z: Golden) -> DetectionTransformer:
    """The whole detector of a ``dino_*.npz``."""
    c = z.config
    assert c["look_forward_twice"] and c["learnt_content_queries"]
    assert c["anchor_temperature"] == 10000
    model = dino(
        **deformable_sizes(z),
        shared_heads=not c["separate_heads_per_layer"],
        denoising_number=c["dn_number"],
        label_noise=c["label_noise_ratio"],
        box_noise=c["box_noise_scale"],
    )
    return filled(model, one_set_of_heads(rename(z.state(), ORIGINS["DINO of detrex"]), model))


def deformable_sizes(z: Golden) -> dict:
    """What the builders of Deformable DETR and of DINO have in common."""
    c = z.config
    check_fixed(c)
    names = feature_names(z)
    return {
        "backbone": GivenFeatures(**dict(zip(names, c["in_channels"], strict=True))),
        "num_classes": c["classes"],
        "in_features": names,
        "extra_levels": c["levels"] - len(names),
        "num_queries": c["queries"],
        "embed_dim": c["d_model"],
        "num_heads": c["heads"],
        "num_sampling_points": c["points"],
        "feedforward_dim": c["ffn"],
        "encoder_layers": c["enc_layers"],
        "decoder_layers": c["dec_layers"],
        "dropout": c["dropout"],
        "activation": c["activation"],
        "groups": c["gn_groups"],
        "temperature": c["temperature"],
        "offset": c["pos_offset"],
        "eps": c["inverse_sigmoid_eps"],
        "num_detections": c["topk"],
        "criterion": criterion(c),
    }


def one_set_of_heads(state: dict, model: DetectionTransformer) -> dict:
    """Heads that a model shares are written once a layer there and once here."""
    for kind in ("class_heads", "box_heads"):
        if len(getattr(model.decoder, kind)) == 1:
            prefix = f"decoder.{kind}."
            state = {
                k: v for k, v in state.items() if not k.startswith(prefix) or k.split(".")[2] == "0"
            }
    return state


def recorded_noise(z: Golden, prefix: str, groups: int) -> Noise:
    """The denoising noise in a file: rows are half groups, columns the boxes of all images."""

    def rows(name: str) -> torch.Tensor:
        values = z[f"{prefix}/{name}"]
        return values.view(2 * groups, -1, *values.shape[1:])

    return Noise(rows("label_final"), rows("box_sign01") * 2 - 1, rows("box_part"))


def feature_names(z: Golden) -> list[str]:
    """Names of the backbone features in the file, fine to coarse."""
    return sorted(k.removeprefix("feat_") for k in z.keys("in") if k.startswith("feat_"))


def filled(model: DetectionTransformer, state: dict) -> DetectionTransformer:
    """Every weight given, none left over."""
    model.load_state_dict(state, strict=True)
    return model
