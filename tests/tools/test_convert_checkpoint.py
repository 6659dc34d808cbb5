"""The convert tool: what it writes, what it prints, what it refuses."""

import os
from pathlib import Path

import pytest
import torch
import torchvision

from convert_checkpoint import config, fitted, main
from kddetr.checkpoint import (
    Checkpointer,
    CheckpointError,
    converted,
    detectron2_names,
    load_pretrained,
    read_card,
    read_checkpoint,
)
from kddetr.checkpoint.origins import CONFIGS, ORIGINS
from kddetr.checkpoint.settings import overrides
from kddetr.detectors import dab_detr, resnet, timm_backbone
from kddetr.engine import load_config
from tests.checkpoint import other_names
from tests.checkpoint.test_published_names import FILES, published_file
from tests.golden_numbers.files import Golden

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def official(tmp_path) -> str:
    """A small DAB-DETR of its authors, with a ResNet-18 and 91 categories."""
    state = Golden("dab_detr").state()
    width = len(state["input_proj.bias"])
    state["input_proj.weight"] = torch.randn(width, 512, 1, 1)
    state["class_embed.weight"] = torch.randn(91, width)
    state["class_embed.bias"] = torch.arange(91.0)
    backbone = torchvision.models.resnet18(weights=None).state_dict()
    body = {f"backbone.0.body.{k}": v for k, v in backbone.items() if not k.startswith("fc.")}
    file = str(tmp_path / "official.pth")
    torch.save({"model": other_names.dab_official(state) | body, "epoch": 49}, file)
    return file


def detector(num_classes: int):
    c = Golden("dab_detr").config
    return dab_detr(
        backbone=resnet(depth=18, out_features=["res5"]),
        num_classes=num_classes,
        num_queries=c["queries"],
        embed_dim=c["d_model"],
        num_heads=c["heads"],
        feedforward_dim=c["ffn"],
        encoder_layers=c["enc_layers"],
        decoder_layers=c["dec_layers"],
    )


def printed(capsys, *words: str) -> str:
    main(list(words))
    return capsys.readouterr().out


def test_a_detector(tmp_path, capsys, official):
    out = str(tmp_path / "ours.pth")
    text = printed(capsys, official, out)
    assert "recognised: DAB-DETR of its authors' project, 91 classes, one head" in text
    assert "80 classes\n" in text and "configs/detectors/dab_detr_r18.py with model.temp" in text
    converted = load_pretrained(detector(80), out).state_dict()
    direct = load_pretrained(detector(80), official).state_dict()
    assert all(torch.equal(value, direct[name]) for name, value in converted.items())
    assert converted["decoder.class_heads.0.bias"][[0, 11, 79]].tolist() == [1, 13, 90]
    again = printed(capsys, out, str(tmp_path / "again.pth"))
    assert "a detector of this project" in again
    text = printed(capsys, official, out, "--force", "--keep-classes")
    assert "91 classes\n" in text and "model.num_classes=91" in text
    load_pretrained(detector(91), out)


def test_a_model_card_is_kept(tmp_path, capsys):
    shipped, out = "kddetr://quickstart_teacher.pth", str(tmp_path / "out.pth")
    printed(capsys, shipped, out)
    assert read_card(out) == read_card(shipped) and read_card(out) is not None


def test_a_backbone(tmp_path, capsys):
    model = torchvision.models.resnet18(weights=None)
    torch.save(model.state_dict(), tmp_path / "r18.pth")
    assert "ImageNet backbone" in printed(
        capsys, str(tmp_path / "r18.pth"), str(tmp_path / "ours.pth")
    )
    ours = detector(2)
    Checkpointer(ours).load(str(tmp_path / "ours.pth"))
    wanted = detectron2_names(model.state_dict())
    found = {k: v for k, v in ours.backbone.state_dict().items() if k in wanted}
    assert len(found) == len(wanted) and all(torch.equal(v, wanted[k]) for k, v in found.items())


def test_a_moving_average(tmp_path, capsys, official):
    state = read_checkpoint(official)["model"]
    average = state | {"class_embed.bias": state["class_embed.bias"] + 1}
    file = str(tmp_path / "in.pth")
    torch.save({"model": state, "ema_state": average}, file)
    assert "--ema converts that" in printed(capsys, file, str(tmp_path / "a.pth"))
    printed(capsys, file, str(tmp_path / "b.pth"), "--ema")
    a, b = (read_checkpoint(str(tmp_path / f"{name}.pth"))["model"] for name in "ab")
    assert torch.equal(a["decoder.class_heads.0.bias"] + 1, b["decoder.class_heads.0.bias"])
    size = sum(value.nbytes for value in a.values())
    assert (
        tmp_path / "a.pth"
    ).stat().st_size < size + 300_000  # no view was written with its whole file


def test_names_of_classes_are_kept_or_given_where_they_are_known(tmp_path, capsys, official):
    """COCO's 80 for a published file; those in a file of this project; none with 91 rows."""
    coco, known, own = (str(tmp_path / f"{name}.pth") for name in ("coco", "known", "own"))
    printed(capsys, official, coco)
    data = read_checkpoint(coco)
    assert data["classes"][:2] == ["person", "bicycle"] and len(data["classes"]) == 80
    torch.save(data | {"classes": [str(i) for i in range(80)]}, known)
    printed(capsys, known, own)
    assert read_checkpoint(own)["classes"][:2] == ["0", "1"]
    printed(capsys, official, coco, "--keep-classes", "--force")
    assert "classes" not in read_checkpoint(coco)


@pytest.mark.parametrize("prefix", ["module.", "model._orig_mod."])
def test_a_prefix_is_removed_in_a_line(tmp_path, capsys, official, prefix):
    state = read_checkpoint(official)["model"]
    wrapped, plain, out = (str(tmp_path / f"{name}.pth") for name in ("wrapped", "plain", "out"))
    torch.save({"state_dict": {prefix + name: value for name, value in state.items()}}, wrapped)
    words = printed(capsys, wrapped, out)
    assert "is removed from the names" in words and "recognised" in words
    printed(capsys, official, plain)
    expected, found = (read_checkpoint(name)["model"] for name in (plain, out))
    assert all(torch.equal(value, found[name]) for name, value in expected.items())


class Evil:
    def __reduce__(self):
        return os.mkdir, ("evil_was_here",)


def test_mistakes_end_in_one_line(tmp_path, capsys, official, monkeypatch):
    monkeypatch.chdir(tmp_path)
    unknown, code = tmp_path / "unknown.pth", tmp_path / "code.pth"
    torch.save({"model": {"net.0.weight": torch.zeros(2)}}, unknown)
    torch.save({"model": {}, "extra": Evil()}, code)
    part = read_checkpoint(official)["model"]
    part = {k: v for k, v in part.items() if "layer3.1.conv2" not in k}
    torch.save({"model": part}, tmp_path / "part.pth")
    whole = read_checkpoint(official)["model"]
    torch.save({"model": {k: v.to(torch.int8) for k, v in whole.items()}}, tmp_path / "int8.pth")
    torch.save({"model": {k: v * torch.nan for k, v in whole.items()}}, tmp_path / "nan.pth")
    out = tmp_path / "out.pth"
    for source, target, words in (
        (tmp_path / "int8.pth", out, "numbers of another kind (torch.int8)"),
        (tmp_path / "nan.pth", out, "holds NaN instead of numbers"),
        (official, tmp_path / "out.safetensors", "name it .pth"),
        (unknown, out, "is not recognised; its 1 weights are net.0 (weight)"),
        (code, out, "mkdir can run code"),
        (tmp_path / "part.pth", out, "missing 1: backbone.res4.1.conv2 (weight)"),
        (tmp_path / "nothing.pth", out, "does not exist"),
        (official, unknown, "exists; --force overwrites it"),
        (official, tmp_path / "no" / "out.pth", "does not exist; make it first"),
    ):
        with pytest.raises(SystemExit) as stopped:
            main([str(source), str(target)])
        status, error = stopped.value.code, capsys.readouterr().err
        assert status == 2 and words in error, error
        assert error.startswith("error: ") and error.count("\n") == 1
    assert not out.exists() and not (tmp_path / "evil_was_here").exists()


@pytest.mark.parametrize("name", ["convnext_atto", "resnet18d"])
def test_files_of_timm_go_straight_into_a_training(tmp_path, capsys, name):
    """Their names depend on the backbone that they are for, which the tool does not know."""
    timm = pytest.importorskip("timm")
    file = str(tmp_path / "x.pth")
    torch.save(timm.create_model(name).state_dict(), file)
    with pytest.raises(SystemExit):
        main([file, str(tmp_path / "out.pth")])
    error = capsys.readouterr().err
    assert "needs no conversion: name it as train.init_checkpoint" in error
    assert error.count("\n") == 1 and not (tmp_path / "out.pth").exists()
    model = timm_backbone(name=name)
    Checkpointer(model).load(file, strict=True)


@pytest.mark.parametrize(("family", "author"), FILES, ids=["-".join(f) for f in FILES])
def test_every_published_detector_is_compared_with_a_model_of_its_sizes(family, author):
    state = published_file(family, author)
    found = converted(state, "x.pth")
    recipe = found.origin.recipes[0]
    for keep, classes in ((False, 80), (True, found.classes)):
        weights = fitted(state, found, recipe, "x.pth", keep_classes=keep)
        assert len(weights["decoder.class_heads.0.weight"]) == classes
        assert weights.keys() == found.state.keys()
    assert (ROOT / config(found, recipe)).is_file()
    for odd in (
        {k: v for k, v in state.items() if "decoder.layers.3." not in k or "norm" not in k},
        {k: v for k, v in state.items() if ".layer3.1." not in k and ".res4.1." not in k},
        {k: v for k, v in state.items() if "backbone." not in k},
        state | {"transformer.patterns.weight": torch.zeros(3, 256)},
    ):
        with pytest.raises(CheckpointError, match=r"missing|left over|without its backbone"):
            fitted(odd, converted(odd, "x.pth"), recipe, "x.pth", keep_classes=True)


def test_a_converted_file_keeps_the_settings_that_it_needs(tmp_path, capsys, official):
    file = str(tmp_path / "ours.pth")
    printed(capsys, official, file)
    plain, *dc5 = read_checkpoint(file)["settings"]  # the names cannot tell which it is
    own = detector(80).settings
    assert {name: own[name] for name in plain} == plain
    assert [one["temperature"] for one in dc5] == [10.0, 20.0]
    other = detector(80)
    other.encoder.position_embedding.temperature = 10000.0
    with pytest.raises(CheckpointError, match=r"set model\.temperature=20\.$"):
        load_pretrained(other, file)


@pytest.mark.parametrize("origin", ORIGINS.values(), ids=str)
def test_the_printed_overrides_fit_the_configs(origin):
    config = CONFIGS[origin.detector]
    refining = ["deformable_detr_refine_r50"] if config == "deformable_detr" else []
    for name in [f"{config}_r50", *refining]:
        for recipe in origin.recipes:
            words = overrides(recipe.settings).split()
            cfg = load_config(str(ROOT / f"configs/detectors/{name}.py"), words)
            assert cfg.model.eps == recipe.settings["eps"] in (1e-3, 1e-5)
            assert cfg.model.backbone.dilation == recipe.settings["backbone.dilation"]
