"""Detectors of the sizes a golden file was made with, carrying its weights."""

from detectron2.layers import ShapeSpec
from torch import nn

from kddetr.detectors import (
    DetectionTransformer,
    HungarianMatcher,
    SetCriterion,
    dab_detr,
    deformable_detr,
)
from tests.golden_numbers.files import Golden
from tests.golden_numbers.names import (
    DAB_DETR_DETREX,
    DAB_DETR_OFFICIAL,
    DEFORMABLE_DETREX,
    rename,
)


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
    return filled(model, rename(z.state(), DAB_DETR_DETREX))


def golden_step_detector(z: Golden, role: str) -> DetectionTransformer:
    """Teacher or student of the complete distillation step."""
    c = z.config
    model = sized_dab_detr(
        c, channels=c[f"{role}_channels"], decoder_layers=c[f"{role}_dec_layers"]
    )
    return filled(model, rename(z.state(f"sd_{role}"), DAB_DETR_OFFICIAL))


def sized_dab_detr(c: dict, *, channels: int, **options) -> DetectionTransformer:
    """A DAB-DETR of the sizes that both kinds of file name alike."""
    check_fixed(c)
    return dab_detr(
        backbone=GivenFeatures(res5=channels),
        num_classes=c["classes"],
        num_queries=c["queries"],
        width=c["d_model"],
        heads=c["heads"],
        hidden=c["ffn"],
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
    """The whole detector of a one-stage ``deformable_detr_*.npz``."""
    c = z.config
    assert not c["two_stage"]
    check_fixed(c)
    names = feature_names(z)
    model = deformable_detr(
        backbone=GivenFeatures(**dict(zip(names, c["in_channels"], strict=True))),
        num_classes=c["classes"],
        in_features=names,
        extra_levels=c["levels"] - len(names),
        num_queries=c["queries"],
        refine=c["with_box_refine"],
        width=c["d_model"],
        heads=c["heads"],
        points=c["points"],
        hidden=c["ffn"],
        encoder_layers=c["enc_layers"],
        decoder_layers=c["dec_layers"],
        dropout=c["dropout"],
        activation=c["activation"],
        groups=c["gn_groups"],
        temperature=c["temperature"],
        offset=c["pos_offset"],
        eps=c["inverse_sigmoid_eps"],
        num_detections=c["topk"],
        criterion=criterion(c),
    )
    state = rename(z.state(), DEFORMABLE_DETREX)
    if not c["with_box_refine"]:
        # Shared heads are written once a layer there and once here.
        state = {
            k: v
            for k, v in state.items()
            if not k.startswith(("decoder.class_heads.", "decoder.box_heads."))
            or k.split(".")[2] == "0"
        }
    return filled(model, state)


def feature_names(z: Golden) -> list[str]:
    """Names of the backbone features in the file, fine to coarse."""
    return sorted(k.removeprefix("feat_") for k in z.keys("in") if k.startswith("feat_"))


def filled(model: DetectionTransformer, state: dict) -> DetectionTransformer:
    """Every weight given, none left over."""
    model.load_state_dict(state, strict=True)
    return model
