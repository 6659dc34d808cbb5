"""Under which key of a checkpoint the weights are, and which of several are meant."""

import re

import pytest
import torch
from torch import nn

from kddetr.checkpoint import CheckpointError, weights_of

STATE = {name: value + 1 for name, value in nn.Linear(3, 2).state_dict().items()}
OTHER = {name: value + 1 for name, value in STATE.items()}
TRAINING = {
    "epoch": 3,
    "optimizer": {"state": {0: {"step": torch.zeros(1)}}, "param_groups": [{"lr": 0.1}]},
    "rng_state": {"cpu": torch.zeros(3)},
}


def taken(data: dict, **options) -> tuple[str, str]:
    """("state" or "other", what was said about the choice)."""
    said: list[str] = []
    weights = weights_of(data, "x.pth", say=said.append, **options)
    for name, expected in (("state", STATE), ("other", OTHER)):
        if all(torch.equal(value, expected[key]) for key, value in weights.items()):
            return name, " ".join(said)
    return "neither", ""


@pytest.mark.parametrize(
    "layout",
    [
        STATE,
        {"model": STATE, "model_cfg": {"depth": 50}},
        {"net": STATE},
        {"params": STATE},
        {"network": STATE},
        {"model_state_dict": STATE},
        {"state_dict": {"model": STATE}},
        {"model": {"name": "detr"}, "state_dict": STATE},
        {"n_averaged": torch.tensor(3), **STATE},
        {"net": STATE, "model": dict(STATE)},
    ],
)
def test_the_usual_layouts_need_no_word(layout):
    training = {} if "weight" in layout else TRAINING
    assert taken({**layout, **training}) == ("state", "")


@pytest.mark.parametrize(
    ("layout", "words"),
    [
        ({"model_ema": STATE}, "under model_ema are taken, as it holds no others"),
        ({"ema": STATE, "model": None}, "under ema are taken"),
        ({"ema": {"module": STATE, "updates": 4}}, r"under ema\.module are taken"),
        ({"state_dict_ema": STATE}, "under state_dict_ema are taken"),
        ({"detr": STATE}, "under detr are taken, which are all that it holds"),
        ({"ema": {"module": OTHER}, "model": STATE}, r"also holds ema\.module"),
        ({"params_ema": OTHER, "params": STATE}, "also holds params_ema"),
        ({"teacher": OTHER, "student": STATE}, "under student are taken; .* holds teacher"),
    ],
)
def test_a_choice_is_said(layout, words):
    name, said = taken({**layout, **TRAINING})
    assert name == "state" and re.search(words, said)


def test_the_average_is_taken_on_request():
    assert taken({"model": STATE, "ema": {"module": OTHER}}, averaged=True)[0] == "other"
    with pytest.raises(CheckpointError, match="no moving average"):
        weights_of({"model": STATE}, "x.pth", averaged=True)


@pytest.mark.parametrize(
    ("first", "second"), [("net", "model"), ("generator", "discriminator"), ("ema", "swa")]
)
def test_several_sets_of_weights_are_a_question(first, second):
    words = rf"several sets of weights, {first} and {second}, .*torch\.load\(FILE\)\['{first}'\]"
    with pytest.raises(CheckpointError, match=words):
        weights_of({first: STATE, second: OTHER}, "x.pth")


@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.bfloat16])
def test_weights_without_a_value_are_refused(kind):
    state = {"a.weight": torch.ones(2), "b.weight": torch.tensor([1, torch.nan], dtype=kind)}
    with pytest.raises(CheckpointError, match=r"holds NaN instead of numbers in b \(weight\)"):
        weights_of({"model": state}, "x.pth")
    infinite = {"anchors": torch.tensor([torch.inf])}
    assert weights_of({"model": infinite}, "x.pth").keys() == {"anchors"}
