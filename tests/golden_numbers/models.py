"""The detectors that golden files were made with: built from the sizes and weights in the file."""

import pytest
import torch
from detectron2.layers import ShapeSpec
from torch import nn

from kddetr.checkpoint.origins import ORIGINS, Origin
from kddetr.checkpoint.published import own_names_of
from kddetr.detectors import (
    DetectionTransformer,
    HungarianMatcher,
    SetCriterion,
    dab_detr,
    deformable_detr,
    dino,
)
from kddetr.detectors.detr.denoising import Noise
from tests.golden_numbers.files import ATOL, RTOL, Golden


def published_names(z: Golden) -> Origin:
    """The names of the weights in a file."""
    if z.name.startswith("kd_step_dab_detr"):
        return ORIGINS["DAB-DETR of its authors' project"]
    if z.name.startswith("dab_detr"):
        return ORIGINS["DAB-DETR of detrex"]
    if z.name.startswith("dino"):
        return ORIGINS["DINO of detrex"]
    kind = "two-stage Deformable DETR" if z.config["two_stage"] else "Deformable DETR"
    return ORIGINS[f"{kind} of detrex"]


def renamed(state: dict, origin: Origin) -> dict:
    """Weights by this project's names; several names in a file may be those of one weight."""
    names, own = own_names_of(state, origin), {}
    for theirs, value in state.items():
        assert torch.equal(own.setdefault(names[theirs], value), value), theirs
    return own


class GivenFeatures(nn.Module):
    """Stands for a backbone whose features come from the file; it only gives their channels."""

    def __init__(self, **channels: int) -> None:
        super().__init__()
        self.channels = channels

    def output_shape(self) -> dict[str, ShapeSpec]:
        return {name: ShapeSpec(channels=c) for name, c in self.channels.items()}


def criterion(config: dict) -> SetCriterion:
    """The ground-truth losses, all with the weight 1, as the files have them."""
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
    """The detector of a ``dab_detr`` file."""
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
    return filled(model, renamed(z.state(), published_names(z)))


def golden_step_detector(z: Golden, role: str) -> DetectionTransformer:
    """The detector with that role, ``teacher`` or ``student``, of the distillation step's file."""
    c = z.config
    model = sized_dab_detr(
        c, channels=c[f"{role}_channels"], decoder_layers=c[f"{role}_dec_layers"]
    )
    return filled(model, renamed(z.state(f"sd_{role}"), published_names(z)))


def sized_dab_detr(c: dict, *, channels: int, **options) -> DetectionTransformer:
    """A DAB-DETR with the sizes that both kinds of file have under the same names."""
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
    """Check the settings that are fixed in this project, because no published model varies them."""
    assert config.get("pos_eps", 1e-6) == 1e-6
    assert config["sine_feats_per_coord"] == config["d_model"] // 2


def golden_deformable_detr(z: Golden) -> DetectionTransformer:
    """The detector of a ``deformable_detr`` file."""
    c = z.config
    refined = "two_stage" if c["two_stage"] else "refine"
    variant = refined if c["with_box_refine"] else "plain"
    model = deformable_detr(**deformable_sizes(z), variant=variant)
    return filled(model, one_set_of_heads(renamed(z.state(), published_names(z)), model))


def golden_dino(z: Golden) -> DetectionTransformer:
    """The detector of a ``dino`` file."""
    c = z.config
    assert c["look_forward_twice"] and c["learnt_content_queries"]
    model = dino(
        **deformable_sizes(z),
        shared_heads=not c["separate_heads_per_layer"],
        denoising_number=c["dn_number"],
        label_noise=c["label_noise_ratio"],
        box_noise=c["box_noise_scale"],
    )
    model.decoder.position.temperature = c["anchor_temperature"]
    return filled(model, one_set_of_heads(renamed(z.state(), published_names(z)), model))


def deformable_sizes(z: Golden) -> dict:
    """The arguments that the builders of Deformable DETR and DINO have in common."""
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
    """The weights without repetitions of shared heads, which files have once for every layer."""
    for kind in ("class_heads", "box_heads"):
        if len(getattr(model.decoder, kind)) == 1:
            prefix = f"decoder.{kind}."
            state = {
                k: v for k, v in state.items() if not k.startswith(prefix) or k.split(".")[2] == "0"
            }
    return state


def check_parameter_gradients(z: Golden, model: DetectionTransformer) -> None:
    """The norm of every parameter's gradient: equal to 1e-4 relative plus 1e-5 absolute.

    Call it in float64. Some of these gradients are sums of many terms that nearly cancel (the slope
    of a PReLU) or cancel completely (a bias before a norm). Rounding the terms to float32 then
    moves the sum by as much as the tolerance, so only the rounding that is in the file may count.

    Args:
        z: the file.
        model: made from the file, after the backward pass.
    """
    names = map(str, z.arrays["grad/param_names"])
    recorded = dict(zip(names, torch.from_numpy(z.arrays["grad/param_l2"]), strict=True))
    expected = {k: float(v) for k, v in renamed(recorded, published_names(z)).items()}
    parameters = dict(model.named_parameters())
    assert expected.keys() == parameters.keys()
    for name, norm in expected.items():
        gradient = parameters[name].grad
        actual = 0.0 if gradient is None else float(gradient.norm())
        assert actual == pytest.approx(norm, rel=RTOL, abs=ATOL), name


def recorded_noise(z: Golden, prefix: str, groups: int) -> Noise:
    """The denoising noise in a file: rows are half groups, columns are the boxes of all images."""

    def rows(name: str) -> torch.Tensor:
        return z[f"{prefix}/{name}"].unflatten(0, (2 * groups, -1))

    return Noise(rows("label_final"), rows("box_sign01") * 2 - 1, rows("box_part"))


def feature_names(z: Golden) -> list[str]:
    """Names of the backbone features in the file, fine to coarse."""
    return sorted(k.removeprefix("feat_") for k in z.keys("in") if k.startswith("feat_"))


def filled(model: DetectionTransformer, state: dict) -> DetectionTransformer:
    """The model in the dtype of the given weights and with all of them, and no others."""
    model.to(next(iter(state.values())).dtype).load_state_dict(state, strict=True)
    return model
