"""A file is loaded only into a model with the settings that its weights were trained with."""

import argparse
import functools
import logging

import pytest
import torch
from torch import nn

from kddetr.checkpoint import (
    Checkpointer,
    CheckpointError,
    adapted,
    load_pretrained,
    read_checkpoint,
)
from kddetr.checkpoint.settings import stated_settings
from kddetr.engine import build, load_config
from tests.checkpoint.test_published_names import published_file
from tests.tiny import FAMILIES, tiny_batch, tiny_detector


@functools.cache
def recipe(name: str, *overrides: str) -> nn.Module:
    """The model of a config; it takes no memory."""
    with torch.device("meta"):
        return build(load_config(f"configs/detectors/{name}.py", list(overrides)).model)


def refusal(model: nn.Module, file: tuple[str, str], source: str, **stated: float) -> str:
    """The message of a refused load, which is the same for strict and other loads."""
    messages = set()
    for strict in (True, False):
        with pytest.raises(CheckpointError) as error:
            adapted(
                published_file(*file),
                model,
                source,
                strict=strict,
                stated=[stated] if stated else [],
            )
        messages.add(str(error.value))
    (message,) = messages
    assert "\n" not in message and len(message) < 300 and message.count(". ") == 0
    return message


def loads(model: nn.Module, file: tuple[str, str], source: str, **stated: float) -> None:
    for strict in (True, False):
        found = adapted(
            published_file(*file), model, source, strict=strict, stated=[stated] if stated else []
        )
        assert found.keys() == model.state_dict().keys()


DINO, DAB = "dino_4scale_r50", "dab_detr_r50"
SHARED = "model.shared_heads=False"


def test_a_file_of_detrex_in_the_config_of_its_authors_and_the_reverse():
    message = refusal(recipe("dino_r50"), (DINO, "detrex"), "x.pth")
    assert f"set model.temperature=10000 model.offset=-0.5 {SHARED}" in message
    message = refusal(recipe("dino_r50_detrex"), (DINO, "official"), "x.pth")
    assert message.endswith("set model.temperature=20 model.offset=0.")
    # What the message says is enough.
    words = ("model.temperature=10000", "model.offset=-0.5", SHARED)
    loads(recipe("dino_r50", *words), (DINO, "detrex"), "x.pth")
    words = ("model.temperature=20", "model.offset=0")
    loads(recipe("dino_r50_detrex", *words), (DINO, "official"), "x.pth")


def test_detrexs_two_recipes(caplog):
    """The names of the weights are the same for both recipes, so the name of the file decides."""
    twelve, twenty_four = recipe("dino_r50_detrex"), recipe("dino_r50", SHARED)
    file = (DINO, "detrex")
    with caplog.at_level(logging.WARNING, logger="kddetr"):
        loads(twelve, file, "dino.pth")
        loads(twelve, file, "dino_r50_4scale_12ep.pth")
        loads(twenty_four, file, "dino_r50_4scale_24ep.pth")
        assert not caplog.text
        loads(twenty_four, file, "24ep/dino.pth")  # a folder's name says nothing
    both = ("model.temperature=20 model.offset=0", "model.temperature=10000 model.offset=-0.5")
    assert all(words in caplog.text for words in both)
    assert refusal(twenty_four, file, "dino_12ep.pth").endswith(f"set {both[1]}.")
    assert refusal(twelve, file, "dino_24EP.pth").endswith(f"set {both[0]}.")
    mixed = recipe("dino_r50_detrex", "model.offset=0")
    assert "set model.offset=-0.5, or model.temp" in refusal(mixed, file, "dino.pth")
    assert "model.eps=0.001" in refusal(recipe("dino_r50_detrex", "model.eps=1e-5"), file, "x.pth")


def test_deformable_detrs_clamp():
    model = recipe("deformable_detr_r50")
    loads(model, ("deformable_detr_r50_plain", "official"), "x.pth")
    loads(model, ("deformable_detr_r50_plain", "huggingface_v5"), "x.pth")
    message = refusal(model, ("deformable_detr_r50_plain", "detrex"), "x.pth")
    assert message.endswith("set model.eps=0.001.")
    message = refusal(model, ("deformable_detr_r50_refine", "detrex"), "x.pth")
    assert message.endswith("set model.eps=0.001 model.variant=refine.")


def test_numbers_that_change_no_prediction_are_not_compared():
    loads(recipe("dab_detr_r50", "model.num_detections=7"), (DAB, "official"), "x.pth")
    for eps in ("1e-3", "1e-5"):  # trained with the one, run with the other
        loads(recipe("dab_detr_r50", f"model.eps={eps}"), (DAB, "huggingface"), "x.pth")


@pytest.mark.parametrize("author", ["official", "detrex", "huggingface"])
def test_dc5(author, caplog):
    """Names and shapes are those of R50; only the name of the file may tell."""
    dilated, plain = recipe("dab_detr_r50_dc5"), recipe("dab_detr_r50")
    file = (DAB, author)
    with caplog.at_level(logging.WARNING, logger="kddetr"):
        loads(plain, file, "dab_detr_r50.pth")
        loads(dilated, file, "converted_dab_detr_r50_dc5.pth")
        loads(dilated, file, "dab-detr-resnet-50-dc5/")
        assert not caplog.text
        loads(dilated, file, "checkpoint.pth")
    assert "model.backbone.dilation=True (files named dc5)" in caplog.text
    words = "set model.temperature=10 model.backbone.dilation=True."
    assert refusal(plain, file, "r50_dc5.pth").endswith(words)
    usual = recipe("dab_detr_r50_dc5", "model.temperature=20")
    loads(usual, file, "dab_detr_r101_dc5.pth")
    odd = recipe("dab_detr_r50_dc5", "model.temperature=30")
    assert refusal(odd, file, "x.pth").endswith("set model.temperature=10.")


def test_detrexs_dilated_backbone_has_torchvisions_names():
    state = published_file(DAB, "official")
    body = {k: v for k, v in state.items() if k.startswith("backbone.")}
    state = {
        k: v for k, v in published_file(DAB, "detrex").items() if not k.startswith("backbone.")
    }
    state |= {name.replace("backbone.0.body.", "backbone.body."): v for name, v in body.items()}
    model = recipe("dab_detr_r50_dc5")
    found = adapted(state, model, "dc5.pth", strict=True)
    assert found.keys() == model.state_dict().keys()


def test_the_options_in_a_file_of_the_authors(caplog):
    def stated(**options) -> dict[str, float]:
        args = argparse.Namespace(lr=1e-4, pe_temperatureH=20, pe_temperatureW=20, **options)
        (found,) = stated_settings({"model": {}, "args": args})
        return found

    plain, dilated = recipe("dab_detr_r50"), recipe("dab_detr_r50_dc5")
    file = (DAB, "official")
    with caplog.at_level(logging.WARNING, logger="kddetr"):
        loads(plain, file, "x.pth", **stated(dilation=False, nheads=8))
        loads(recipe("dab_detr_r101", "model.backbone.depth=50"), file, "x.pth", **stated())
        usual = recipe("dab_detr_r50_dc5", "model.temperature=20")
        loads(usual, file, "x.pth", **stated(dilation=True))
    assert not caplog.text
    message = refusal(dilated, file, "x.pth", **stated(dilation=False))
    assert message.endswith("set model.temperature=20 model.backbone.dilation=False.")
    assert refusal(plain, file, "x.pth", **stated(dilation=True)).endswith("dilation=True.")
    assert refusal(plain, file, "x.pth", **stated(nheads=4)).endswith("set model.num_heads=4.")


def test_odd_statements_are_ignored():
    for odd in (
        None,
        3,
        [1],
        {"temperature": "20"},
        {3: 4.0},
        {"offset": float("nan")},
        {"eps": 10**400},
    ):
        assert stated_settings({"settings": odd}) == []
        assert stated_settings({"args": odd}) == []
    options = {"dilation": True, "nheads": None}
    assert stated_settings({"args": options}) == [{"backbone.dilation": True}]


CHANGES = {"temperature": 30.0, "offset": 0.3, "eps": 0.2}
OWN = [(family, *change) for family in FAMILIES for change in CHANGES.items()]
# Deformable attention shows the number of its heads in a shape.
OWN += [("dab_detr", "num_heads", 2), ("dab_detr", "anchor_temperature", 30.0)]


@pytest.mark.parametrize(("family", "name", "value"), OWN)
def test_an_own_file_in_a_model_of_other_settings(tmp_path, family, name, value):
    model = tiny_detector(family).eval()
    other = tiny_detector(family, **{name: value}).eval()
    assert other.settings.keys() == model.settings.keys()
    Checkpointer(model, str(tmp_path)).save("model_0000001", iteration=1)
    file = str(tmp_path / "model_0000001.pth")
    before = [value.clone() for value in other.state_dict().values()]
    for strict in (True, False):
        with pytest.raises(CheckpointError, match=rf"set model\.{name}=[\d.e-]+\.$"):
            Checkpointer(other).load(file, strict=strict)
    assert all(map(torch.equal, before, other.state_dict().values()))
    # It is refused for a reason: the same weights predict something else there.
    other.load_state_dict(model.state_dict())
    with torch.no_grad():
        ours, theirs = (
            m.decode(memory, m.queries(memory))
            for m in (model, other)
            for memory in (m.encode(tiny_batch()),)
        )
    assert not torch.allclose(ours.boxes, theirs.boxes, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_own_file_states_its_settings_and_an_older_one_does_not(tmp_path, family):
    model = tiny_detector(family)
    saver = Checkpointer(model, str(tmp_path))
    saver.save_weights("model_best")
    data = read_checkpoint(str(tmp_path / "model_best.pth"))
    assert data.keys() == {"model", "settings"} and data["settings"] == model.settings
    load_pretrained(tiny_detector(family, num_detections=3), str(tmp_path / "model_best.pth"))
    assert saver.load(str(tmp_path / "model_best.pth")) == {}
    torch.save({"model": model.state_dict()}, tmp_path / "old.pth")
    load_pretrained(tiny_detector(family, temperature=30.0), str(tmp_path / "old.pth"))


def test_another_detector_takes_what_fits_of_an_own_file(tmp_path):
    """Only the backbone fits, so the settings of the rest are not compared."""
    source, model = tiny_detector("dino"), tiny_detector("dab_detr", temperature=30.0)
    Checkpointer(source, str(tmp_path)).save_weights("x")
    Checkpointer(model).load(str(tmp_path / "x.pth"))
    weights = model.backbone.state_dict()
    assert all(torch.equal(v, weights[k]) for k, v in source.backbone.state_dict().items())
