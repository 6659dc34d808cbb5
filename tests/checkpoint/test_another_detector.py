"""A file of another detector, backbone or size than the model's is refused in one sentence."""

import functools
import logging
import re

import pytest
import torch
import torchvision
from torch import nn

from kddetr.checkpoint import Checkpointer, CheckpointError, adapted, detectron2_names
from kddetr.detectors import dab_detr, deformable_detr, dino, resnet, swin, timm_backbone
from tests.checkpoint.test_published_names import FILES, full_size, needs, published_file
from tests.tiny import tiny_detector

OFFICIAL = [family for family, author in FILES if author == "official"]


@functools.cache
def detector(builder, depth: int = 50, **options) -> nn.Module:
    """A detector of full size that takes no memory."""
    with torch.device("meta"):
        return builder(backbone=resnet(depth=depth), num_classes=80, **options)


@functools.cache
def dino_with(backbone, **options) -> nn.Module:
    with torch.device("meta"):
        return dino(backbone=backbone(**options), num_classes=80)


def refused(model: nn.Module, file: tuple[str, str], words: str, *, strict: bool) -> None:
    with pytest.raises(CheckpointError, match=words) as error:
        adapted(published_file(*file), model, "x.pth", strict=strict)
    message = str(error.value)
    assert "\n" not in message and len(message) < 300 and message.count(". ") == 0


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(("family", "author"), FILES, ids=["-".join(f) for f in FILES])
def test_another_detector(family, author, strict):
    others = [other for other in OFFICIAL if other.split("_")[-1] != family.split("_")[-1]]
    for other in others:
        if {"plain", "refine"} == {family.split("_")[-1], other.split("_")[-1]}:
            continue  # one detector with two kinds of heads
        words = r"x\.pth is .*, and the model is another detector"
        refused(full_size(other, 80), (family, author), words, strict=strict)
    if family.startswith("dab"):
        refused(
            detector(deformable_detr, variant="anchors"), (family, author), words, strict=strict
        )


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("author", ["official", "detrex"])
def test_a_published_file_with_another_backbone(author, strict):
    file = ("dino_4scale_r50", author)
    for depth in (18, 101):
        words = f"x.pth has a ResNet-50 and the model a ResNet-{depth}; take a config with"
        refused(detector(dino, depth), file, words, strict=strict)
    pytest.importorskip("timm")
    tiny, other = dino_with(swin, size="tiny"), dino_with(timm_backbone, name="resnet50")
    refused(tiny, file, "has a ResNet-50 and the model a Swin-T", strict=strict)
    refused(other, file, "has a ResNet-50 and the model a backbone of another kind", strict=strict)
    ours = published_file(*file)
    ours = {k: v for k, v in ours.items() if not k.startswith("backbone.")}
    for name, value in tiny.state_dict().items():
        if name.startswith("backbone.timm."):
            ours[
                name.replace("timm.", "0." * (author == "official")).replace("layers_", "layers.")
            ] = value
    with pytest.raises(CheckpointError, match="has a Swin-T and the model a Swin-L"):
        adapted(ours, dino_with(swin, size="large"), "x.pth", strict=strict)


def test_a_backbone_that_stops_earlier_is_the_same():
    with torch.device("meta"):
        backbone = resnet(depth=50, out_features=["res4"])
        model = dab_detr(backbone=backbone, num_classes=80, in_feature="res4")
    state = published_file("dab_detr_r50", "official")
    state["input_proj.weight"] = state["input_proj.weight"][:, :1024]
    assert "encoder.layers.5.attention_norm.weight" in adapted(state, model, "x.pth")


def test_an_own_file_with_another_backbone(caplog):
    """Only a warning, because a training may start from a part of such a file."""
    own, other = detector(dino, 50), detector(dino, 18)
    for strict in (True, False):  # that it is not whole is found when it is loaded
        with caplog.at_level(logging.WARNING, logger="kddetr"):
            assert len(adapted(own.state_dict(), other, "x.pth", strict=strict)) > 300
        assert "x.pth has a ResNet-50 and the model a ResNet-18" in caplog.text
        caplog.clear()
    adapted(own.state_dict(), own, "x.pth", strict=True)
    assert not caplog.text


@pytest.mark.parametrize("names", [dict, detectron2_names])
def test_an_imagenet_file_of_another_depth(caplog, names):
    with torch.device("meta"):
        state = names(torchvision.models.resnet50(weights=None).state_dict())
    with caplog.at_level(logging.WARNING, logger="kddetr"):
        adapted(state, detector(dino, 50), "x.pth")
        assert not caplog.text
        adapted(state, detector(dino, 18), "x.pth")
    assert "x.pth has a ResNet-50 and the model a ResNet-18" in caplog.text


SIZES = [
    ({"decoder_layers": 3}, "decoder_layers=6 and the model 3; set that number"),
    ({"decoder_layers": 8}, "decoder_layers=6 and the model 8; set that number"),
    ({"encoder_layers": 2}, "encoder_layers=6 and the model 2; set that number"),
    ({"num_queries": 300}, "num_queries=900 and the model 300; set that number"),
    ({"extra_levels": 2}, "extra_levels)=4 and the model 5; set that number"),
]


@pytest.mark.parametrize(("options", "words"), SIZES, ids=lambda x: "".join(x))
@pytest.mark.parametrize("author", ["official", "detrex"])
def test_other_sizes(caplog, options, words, author):
    """A strict load is refused in one sentence; any other warns, and loads what fits."""
    model = detector(dino, **options, **needs("dino", author))
    refused(model, ("dino_4scale_r50", author), f"x.pth has .*{re.escape(words)}", strict=True)
    with caplog.at_level(logging.WARNING, logger="kddetr"):
        found = adapted(published_file("dino_4scale_r50", author), model, "x.pth")
    assert f"{words.split(';')[0]}: what fits is loaded" in caplog.text
    own = model.state_dict()
    fitting = [name for name in own if name in found and own[name].shape == found[name].shape]
    assert len(fitting) > 0.7 * len(own)


@pytest.mark.parametrize("family", ["dab_detr", "deformable_detr", "dino"])
def test_own_files_of_other_sizes(tmp_path, family):
    file = str(tmp_path / "x.pth")
    torch.save({"model": tiny_detector(family).state_dict()}, file)
    for option, theirs in (("decoder_layers", 2), ("encoder_layers", 1), ("num_queries", 6)):
        model = tiny_detector(family, **{option: 4})
        with pytest.raises(CheckpointError, match=rf"has {option}={theirs} and the model 4"):
            Checkpointer(model).load(file, strict=True)
        Checkpointer(model).load(file)
