"""Readable files with weights that no detector has are refused in one sentence, quickly."""

import random
import time

import pytest
import torch

from kddetr.checkpoint import CheckpointError, adapted, converted, load_weights
from kddetr.checkpoint.backbones import own_names
from kddetr.detectors import swin, timm_backbone
from tests.checkpoint import other_names
from tests.golden_numbers.files import Golden
from tests.tiny import tiny_detector

NUMBER = torch.tensor(1.0)
ONE = torch.ones(1)


@pytest.mark.parametrize(
    "name",
    [
        "input_proj.0.0.weight",
        "transformer.level_embed",
        "class_embed.0.weight",
        "label_enc.weight",
        "transformer.tgt_embed.weight",
        "backbone.0.patch_embed.proj.weight",
        "decoder.class_heads.0.weight",
        "encoder.layers.0.attention_norm.weight",
        "query_source.content",
    ],
)
def test_a_number_in_place_of_a_matrix(name):
    state = other_names.dino_official(Golden("dino_eval").state())
    for weights in ({name: NUMBER}, state | {name: NUMBER}):
        fitted(weights, tiny_detector("dino"))


def fitted(state: dict[str, torch.Tensor], model: torch.nn.Module) -> bool:
    """Whether the weights are loaded; if not, they are refused in one sentence."""
    try:
        found = converted(state, "x.pth")
        _ = found and (str(found), found.config, found.backbone)
        for strict in (True, False):
            load_weights(model, adapted(state, model, "x.pth"), strict=strict, source="x.pth")
    except CheckpointError as error:
        assert len(str(error).splitlines()) == 1 and len(str(error)) < 4000
        return False
    return True


@pytest.mark.parametrize("number", ["10000", "100000000", "9" * 5000])
@pytest.mark.parametrize(
    "name",
    [
        "transformer.decoder.layers.{}.x",
        "transformer.encoder.layers.{}.x",
        "input_proj.{}.0.weight",
        "neck.convs.{}.conv.weight",
        "neck.extra_convs.{}.conv.weight",
        "class_embed.{}.weight",
        "decoder.class_heads.{}.weight",
        "backbone.0.body.layer1.{}.conv1.weight",
        "backbone.res3.{}.conv1.weight",
        "backbone.0.norm{}.weight",
    ],
)
def test_a_huge_number_in_a_name_costs_nothing(name, number):
    """One name with the number of a layer is no reason to count up to it."""
    state = {name.format(number): ONE, "backbone.0.patch_embed.proj.weight": ONE}
    state["backbone.0.layers.0.blocks.0.attn.relative_position_bias_table"] = ONE
    resnet = {"layer1.0.conv1.weight": ONE, f"layer3.{number}.conv1.weight": ONE}
    began = time.process_time()
    assert not fitted({name.format(number): ONE}, tiny_detector("dino"))
    assert not fitted(state, tiny_detector("dino"))
    assert len(own_names(resnet, "x.pth")) == len(resnet)
    bare = {k.removeprefix("backbone.0."): v for k, v in state.items()}
    assert len(own_names(bare, "x.pth")) == len(bare)
    assert time.process_time() - began < 2


def test_a_huge_shape_costs_nothing():
    wide = {"transformer.level_embed": ONE.expand(10**9, 1)}
    assert not fitted(wide, tiny_detector("dino"))


def odd(state: dict[str, torch.Tensor], dice: random.Random) -> dict[str, torch.Tensor]:
    """The same weights with one or two renamed, left out, or of another shape or type."""
    state = dict(state)
    for name in dice.sample(list(state), dice.choice([1, 1, 2])):
        value = state.pop(name)
        kind = dice.randrange(6)
        if kind == 0:
            parts = name.split(".")
            parts[dice.randrange(len(parts))] = dice.choice(
                ["0", "7", "99", "100", "weight", "", "a\nb"]
            )
            state[".".join(parts)] = value
        elif kind < 5:
            changed = [NUMBER, value[:1], value.double(), value[None]]
            state[name] = changed[kind - 1]
    return state


DETECTORS = {
    "dab_detr": ("dab_detr", dict),
    "deformable_detr_two_stage": ("deformable_detr_two_stage", other_names.deformable_hugging_face),
    "dino_eval": ("dino", other_names.dino_official),
    "deformable_detr_plain": ("deformable_detr_plain", other_names.deformable_official),
}


@pytest.mark.parametrize("name", DETECTORS)
def test_odd_published_files_are_loaded_or_refused(name):
    family, source = DETECTORS[name]
    state = source(Golden(name).state())
    model = tiny_detector(family, embed_dim=32, num_classes=5, decoder_layers=3)
    dice = random.Random(0)
    for _ in range(25):
        fitted(odd(state, dice), model)


@pytest.mark.parametrize("family", ["dab_detr", "dino"])
def test_odd_own_files_are_loaded_or_refused(family):
    model = tiny_detector(family)
    dice = random.Random(0)
    for _ in range(25):
        fitted(odd(model.state_dict(), dice), model)


def test_odd_swin_files_are_loaded_or_refused():
    pytest.importorskip("timm")
    model = swin(size="tiny")
    state = {k.removeprefix("timm."): v for k, v in model.state_dict().items()}
    dice = random.Random(0)
    for _ in range(10):
        fitted(odd({k.replace("layers_", "layers."): v for k, v in state.items()}, dice), model)
        fitted(odd(state, dice), timm_backbone(name="test_resnet"))
