"""Published ImageNet files load into the backbone of a detector."""

import logging

import pytest
import torch
from torch import nn

from kddetr.checkpoint import Checkpointer, backbone_weights, load_weights, swin_names
from kddetr.detectors import swin, timm_backbone

timm = pytest.importorskip("timm")

CLASSIFIERS = {
    ("tiny", 7): "swin_tiny_patch4_window7_224",
    ("small", 7): "swin_small_patch4_window7_224",
    ("base", 7): "swin_base_patch4_window7_224",
    ("base", 12): "swin_base_patch4_window12_384",
    ("large", 7): "swin_large_patch4_window7_224",
    ("large", 12): "swin_large_patch4_window12_384",
}


class Detector(nn.Module):
    def __init__(self, backbone: nn.Module):
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(2, 2)


def microsoft(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """timm's Swin classifier under Microsoft's names, with the further entries of such files."""
    renamed = {}
    for key, value in state.items():
        if ".downsample." in key:
            stage = int(key.split(".")[1])
            key = key.replace(f"layers.{stage}", f"layers.{stage - 1}")
        renamed[key.replace("head.fc.", "head.")] = value
    for name in ("layers.0.blocks.0.attn.relative_position_index", "layers.0.blocks.1.attn_mask"):
        renamed[name] = torch.zeros(49, 49)
    return renamed


@pytest.fixture(scope="module")
def classifier():
    torch.manual_seed(0)
    model = timm.create_model(
        CLASSIFIERS["tiny", 7], strict_img_size=False, always_partition=True
    ).eval()
    for parameter in model.parameters():
        if parameter.ndim < 2:
            nn.init.normal_(parameter, std=0.2)
    return model


@pytest.mark.slow
@pytest.mark.parametrize("source", ["microsoft", "timm"])
def test_swin_file_in_a_detector(classifier, tmp_path, caplog, source):
    """The features equal timm's from the same file, at a size that its windows divide."""
    state, file = classifier.state_dict(), str(tmp_path / "swin.pth")
    torch.save({"model": microsoft(state) if source == "microsoft" else state}, file)
    detector = Detector(swin(size="tiny", layer_norm=False)).eval()
    with caplog.at_level(logging.WARNING, logger="kddetr"):
        Checkpointer(detector).load(file)
    assert "missing 2: head (weight, bias)" in caplog.text and "left over" not in caplog.text
    reference = timm.create_model(
        CLASSIFIERS["tiny", 7], strict_img_size=False, always_partition=True
    ).eval()
    if source == "microsoft":
        state = timm.models.swin_transformer.checkpoint_filter_fn(torch.load(file), reference)
    reference.load_state_dict(state)
    image = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        expected = reference.forward_intermediates(image, intermediates_only=True)[1:]
        found = detector.backbone(image).values()
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("size", "window"), CLASSIFIERS)
def test_every_published_size_fits(size, window):
    with torch.device("meta"):
        state = timm.create_model(CLASSIFIERS[size, window]).state_dict()
        model = swin(size=size, window=window, layer_norm=False)
    for file in (state, microsoft(state)):
        found = backbone_weights(file, model)
        shapes = {name: value.shape for name, value in found.items()}
        assert shapes == {name: value.shape for name, value in model.state_dict().items()}


def test_swin_of_a_published_detector(classifier):
    """DINO's files: Microsoft's names without classifier, and a norm for each feature in use."""
    state = {k: v for k, v in microsoft(classifier.state_dict()).items() if k[:4] != "norm"}
    state = {k: v for k, v in state.items() if not k.startswith("head")}
    for i in (1, 2, 3):
        for name in ("weight", "bias"):
            state[f"norm{i}.{name}"] = torch.randn(96 * 2**i)
    model = swin(size="tiny")
    assert load_weights(model, swin_names(state), strict=True, source="dino.pth").complete
    assert torch.equal(model.norms["res4"].weight, state["norm2.weight"])
    last = state["layers.2.downsample.norm.bias"]
    assert torch.equal(model.timm["layers_3"].downsample.norm.bias, last)
    # Norms that the backbone does not have, and parts that no Swin has, are reported.
    bare, odd = swin(size="tiny", layer_norm=False), {"absolute_pos_embed": torch.zeros(1, 9, 96)}
    found = backbone_weights({**state, **odd}, bare)
    coverage = load_weights(bare, found, strict=False, source="dino.pth")
    assert len(coverage.unexpected) == 7 and "timm.absolute_pos_embed" in coverage.unexpected


def test_earlier_features_need_no_later_stages(classifier):
    model = Detector(swin(size="tiny", out_features=["res4"], layer_norm=False))
    found = backbone_weights(microsoft(classifier.state_dict()), model)
    coverage = load_weights(model, found, strict=False, source="swin.pth")
    assert coverage.missing == ["head.weight", "head.bias"] and not coverage.unexpected


@pytest.mark.parametrize(
    "name",
    [
        "resnet10t",
        "test_convnext",
        "test_efficientnet",
        "test_mambaout",
        pytest.param("hiera_tiny_224", marks=pytest.mark.slow),
    ],
)
def test_file_of_any_network(name):
    """timm flattens the sequences of some networks, and keeps others as they are."""
    state = timm.create_model(name).state_dict()
    wanted = ["res3", "res5"] if name.startswith("hiera") else ["res3", "res4"]
    model = Detector(timm_backbone(name=name, out_features=wanted))
    found = backbone_weights(state, model)
    coverage = load_weights(model, found, strict=False, source="timm.pth")
    assert coverage.missing == ["head.weight", "head.bias"]
    assert not coverage.unexpected and not coverage.mismatched
    bare = timm_backbone(name=name, out_features=wanted)
    assert load_weights(bare, backbone_weights(state, bare), strict=True, source="x").complete
    # The state dict of a backbone alone loads into a detector with the same backbone.
    again = Detector(timm_backbone(name=name, out_features=wanted))
    load_weights(again, backbone_weights(bare.state_dict(), again), strict=False, source="x")
    assert torch.equal(first(again.backbone), first(bare))


def first(model: nn.Module) -> torch.Tensor:
    return next(iter(model.state_dict().values()))


def test_a_larger_network_is_noticed():
    model = timm_backbone(name="resnet18")
    with torch.device("meta"):
        larger = timm.create_model("resnet34").state_dict()
    left_over = backbone_weights(larger, model).keys() - model.state_dict().keys()
    assert "timm.layer3.5.conv1.weight" in left_over


def test_other_files_are_not_renamed():
    model = Detector(timm_backbone(name="test_resnet"))
    assert backbone_weights(model.state_dict(), model) is None
    assert backbone_weights({"transformer.weight": torch.zeros(1)}, model) is None
    twice = nn.ModuleList([model, Detector(timm_backbone(name="test_resnet"))])
    assert backbone_weights(timm.create_model("test_resnet").state_dict(), twice) is None
    assert backbone_weights(timm.create_model("test_resnet").state_dict(), nn.Linear(1, 1)) is None
