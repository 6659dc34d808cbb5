"""Backbones compute the features of the implementations that their weights come from."""

import copy
import sys

import pytest
import torch
import torchvision
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.layers import FrozenBatchNorm2d
from torch import nn

from kddetr.checkpoint import detectron2_names, load_weights, swin_names
from kddetr.detectors import deformable_detr, resnet, swin, timm_backbone
from tests.checkpoint.swin_reference import microsoft_names, published_window_attention
from tests.tiny import tiny_batch

LEVELS = ("res2", "res3", "res4", "res5")


def random_statistics(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.0)
            nn.init.uniform_(module.bias, -0.2, 0.2)
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 2)
    return model.eval()


def torchvision_features(model: nn.Module, image: torch.Tensor) -> dict[str, torch.Tensor]:
    x = model.maxpool(model.relu(model.bn1(model.conv1(image))))
    features = {}
    for i, name in enumerate(LEVELS, start=1):
        features[name] = x = getattr(model, f"layer{i}")(x)
    return features


@pytest.mark.parametrize("depth", [18, 34, 50])
def test_resnet_is_torchvisions(depth):
    torch.manual_seed(depth)
    reference = random_statistics(getattr(torchvision.models, f"resnet{depth}")(weights=None))
    ours = resnet(depth=depth)  # frozen norms are the same in training mode
    load_weights(ours, detectron2_names(reference.state_dict()), strict=True, source="random")
    image = torch.randn(1, 3, 50, 70)
    with torch.no_grad():
        expected, found = torchvision_features(reference, image), ours(image)
    assert list(found) == ["res3", "res4", "res5"]
    for name, shape in ours.output_shape().items():
        torch.testing.assert_close(found[name], expected[name], atol=1e-5, rtol=1e-5)
        sides = [-(-side // shape.stride) for side in (50, 70)]
        assert found[name].shape == (1, shape.channels, *sides)


@pytest.mark.parametrize("depth", [50, 101])
def test_dilated_resnet_is_torchvisions(depth):
    torch.manual_seed(depth)
    build = getattr(torchvision.models, f"resnet{depth}")
    dilated = [False, False, True]
    reference = random_statistics(build(weights=None, replace_stride_with_dilation=dilated))
    state = detectron2_names(reference.state_dict())
    ours, plain = (resnet(depth=depth, dilation=on).eval() for on in (True, False))
    for model in (ours, plain):
        load_weights(model, state, strict=True, source="random")
    image = torch.randn(1, 3, 50, 70)
    with torch.no_grad():
        expected, found = torchvision_features(reference, image), ours(image)
        assert plain(image)["res5"].shape[-2:] == (2, 3)  # the same weights, another network
    for name in ("res3", "res4", "res5"):
        scale = expected[name].abs().max()
        torch.testing.assert_close(found[name] / scale, expected[name] / scale, atol=1e-5, rtol=0)
    assert found["res5"].shape == (1, 2048, 4, 5)
    assert {name: shape.stride for name, shape in ours.output_shape().items()} == {
        "res3": 8,
        "res4": 16,
        "res5": 16,
    }


def test_only_bottlenecks_are_dilated():
    with torch.device("meta"), pytest.raises(ValueError, match="depth of 50 or more"):
        resnet(depth=34, dilation=True)


def test_resnet_101_has_torchvisions_weights():
    with torch.device("meta"):
        state = detectron2_names(torchvision.models.resnet101(weights=None).state_dict())
        ours = resnet(depth=101).state_dict()
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in state.items()}


def trainable_parts(model: nn.Module) -> set[str]:
    return {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("norm", ["FrozenBN", "BN"])
@pytest.mark.parametrize("freeze_at, frozen", [(0, set()), (1, {"stem"}), (2, {"stem", "res2"})])
def test_freeze_at(freeze_at, frozen, norm):
    with torch.device("meta"):
        model = resnet(depth=18, freeze_at=freeze_at, norm=norm)
    assert trainable_parts(model) == {"stem", *LEVELS} - frozen
    for name, part in model.named_children():
        kinds = {
            type(m) for m in part.modules() if isinstance(m, nn.BatchNorm2d | FrozenBatchNorm2d)
        }
        assert kinds == {
            FrozenBatchNorm2d if norm == "FrozenBN" or name in frozen else nn.BatchNorm2d
        }


def test_without_timm_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    for build in (lambda: swin(size="tiny"), lambda: timm_backbone(name="resnet10t")):
        with pytest.raises(ImportError, match=r"not installed: pip install -e \.\[timm\]"):
            build()


@pytest.fixture(scope="module")
def swin_pair():
    """torchvision's Swin-T, and ours with its weights, renamed to Microsoft's names."""
    pytest.importorskip("timm")
    torch.manual_seed(0)
    reference = torchvision.models.swin_t(weights=None).eval()
    for name, parameter in reference.named_parameters():
        if name.endswith("bias") or "norm" in name:
            nn.init.normal_(parameter, 1.0 * name.endswith("weight"), 0.2)
        elif name.endswith("bias_table"):
            nn.init.normal_(parameter)
    ours = swin(size="tiny", out_features=LEVELS, layer_norm=False).eval()
    state = swin_names(microsoft_names(reference.state_dict()))
    load_weights(ours, state, strict=True, source="random")
    return reference, ours


def test_swin_is_torchvisions(swin_pair):
    """At a size at which no stage is a multiple of the window, and the image is padded as well."""
    reference, ours = swin_pair
    image = torch.randn(1, 3, 230, 258)
    with torch.no_grad():
        found = ours(image)
        x = nn.functional.pad(image, (0, 2, 0, 2))
        for i, name in enumerate(LEVELS):
            x = reference.features[2 * i : 2 * i + 2](x)
            torch.testing.assert_close(found[name], x.permute(0, 3, 1, 2), atol=2e-5, rtol=1e-4)
    sizes = {name: tuple(feature.shape[1:]) for name, feature in found.items()}
    assert sizes == {
        "res2": (96, 58, 65),
        "res3": (192, 29, 33),
        "res4": (384, 15, 17),
        "res5": (768, 8, 9),
    }


@pytest.mark.parametrize("size", [(3, 5), (7, 7), (9, 16), (1, 1)])
def test_windows_are_padded_and_shifted_at_every_size(swin_pair, size):
    _, ours = swin_pair
    x = torch.randn(2, *size, 768)
    for block in ours.timm["layers_3"].blocks:
        with torch.no_grad():
            expected = published_window_attention(
                block.attn, x, window=7, shift=block.shift_size[0]
            )
            torch.testing.assert_close(block._attn(x), expected, atol=1e-5, rtol=1e-5)
    assert block.shift_size == (3, 3)


@pytest.mark.parametrize("size", [(1, 33), (50, 70), (4, 4)])
def test_swin_takes_any_image(swin_pair, size):
    found = swin_pair[1](torch.randn(2, 3, *size))
    for name, shape in swin_pair[1].output_shape().items():
        expected = (2, shape.channels, *(-(-side // shape.stride) for side in size))
        assert found[name].shape == expected and found[name].isfinite().all()


def test_swin_in_training(swin_pair):
    model = swin(size="tiny", freeze_at=2, out_features=["res4"], checkpoint_activations=True)
    assert "layers_3" not in dict(model.timm.named_children())
    assert set(model.norms) == {"res4"}
    frozen = {n for n, p in model.timm.named_parameters() if not p.requires_grad}
    assert {name.split(".")[0] for name in frozen} == {"patch_embed", "layers_0"}
    assert model.training and not model.train().timm["layers_0"].training
    twin = copy.deepcopy(model)
    with torch.no_grad():
        twin.timm["layers_2"].blocks[0].attn.proj.weight.zero_()  # the copy's own weight
    image = torch.randn(1, 3, 64, 64)
    assert not torch.equal(twin.eval()(image)["res4"], model.eval()(image)["res4"])
    model.train()(image)["res4"].square().sum().backward()
    assert all((p.grad is not None) == p.requires_grad for p in model.parameters())
    with pytest.raises(ValueError, match="huge with window 7; choose one of size=tiny window=7"):
        swin(size="huge")


def test_checkpointed_activations_change_nothing(swin_pair):
    _, plain = swin_pair
    other = swin(size="tiny", layer_norm=False, drop_path=0.0, checkpoint_activations=True)
    other.load_state_dict(plain.state_dict())
    image = torch.randn(1, 3, 40, 40)
    grads = []
    for model in (plain, other):
        model.zero_grad()
        model.train(model is other)(image)["res5"].sum().backward()
        grads.append(model.timm["patch_embed"].proj.weight.grad)
    torch.testing.assert_close(*grads)
    plain.eval().zero_grad()


@pytest.mark.parametrize(
    "name, freeze_at",
    [("test_resnet", 2), ("test_convnext", 1), ("test_efficientnet", 0), ("resnet10t", 1)],
)
def test_any_network_of_timm(name, freeze_at):
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model = timm_backbone(name=name, freeze_at=freeze_at, out_features=["res3", "res4"]).eval()
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    random = {k: torch.rand(v.shape) + 0.1 for k, v in model.timm.state_dict().items()}
    model.timm.load_state_dict(random)
    reference = timm.create_model(name, features_only=True, out_indices=model_places(timm, name))
    reference.eval().load_state_dict(random, strict=False)
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        for found, expected in zip(model(image).values(), reference(image), strict=True):
            assert expected.isfinite().all() and expected.std() > 0
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert {k: v.stride for k, v in model.output_shape().items()} == {"res3": 8, "res4": 16}
    for size in ((1, 33), (50, 70)):
        for feature, stride in zip(model(torch.randn(1, 3, *size)).values(), (8, 16)):
            assert feature.shape[-2:] == tuple(-(-side // stride) for side in size)


def model_places(timm, name: str) -> list[int]:
    infos = timm.create_model(name, features_only=True).feature_info.info
    return [i for i, info in enumerate(infos) if info["reduction"] in (8, 16)]


def test_options_of_a_config():
    pytest.importorskip("timm")
    options = {"depths": [1, 1, 1, 2], "drop_path_rate": 0.5}
    model = instantiate(L(timm_backbone)(name="test_convnext", layer_norm=True, options=options))
    assert len(model.timm["stages_3"].blocks) == 2
    assert model.timm["stages_3"].blocks[-1].drop_path.drop_prob == 0.5
    image = torch.randn(1, 3, 40, 50)
    with torch.no_grad():
        for feature in model.eval()(image).values():
            assert feature.mean(1).abs().max() < 1e-5  # a LayerNorm's, over channels


def test_frozen_stages_of_timm():
    pytest.importorskip("timm")
    model = timm_backbone(name="resnet10t", freeze_at=2, frozen_norm=False).train()
    parts = {n.split(".")[0] for n, p in model.timm.named_parameters() if p.requires_grad}
    assert parts == {"layer2", "layer3", "layer4"}
    batch_norms = [n for n, m in model.timm.named_modules() if isinstance(m, nn.BatchNorm2d)]
    assert batch_norms and {n.split(".")[0] for n in batch_norms} == parts
    with pytest.raises(ValueError, match=r"in one piece.*set freeze_at=0"):
        timm_backbone(name="test_efficientnet", freeze_at=1)
    with pytest.raises(ValueError, match=r"resnet10t, .*\(res1, res2, res3, res4, res5\)"):
        timm_backbone(name="resnet10t", out_features=["res3", "res7"])
    with pytest.raises(ValueError, match="no model 'resnet10tt'; did you mean resnet10t"):
        timm_backbone(name="resnet10tt")


@pytest.mark.parametrize("name", ["test_resnet", "swin"])
def test_a_detector_on_timm_trains(name):
    pytest.importorskip("timm")
    torch.manual_seed(0)
    backbone = swin(size="tiny") if name == "swin" else timm_backbone(name=name, freeze_at=1)
    model = deformable_detr(
        backbone=backbone,
        num_classes=3,
        num_queries=5,
        embed_dim=16,
        num_heads=2,
        feedforward_dim=16,
        groups=4,
        encoder_layers=1,
        decoder_layers=1,
    )
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    sum(model(tiny_batch()).values()).backward()
    unused = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not unused
    optimizer.step()
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    still = {n for n, p in model.named_parameters() if not p.requires_grad}
    assert any("backbone.timm" in n for n in moved) and not moved & still
    assert bool(still) == (name != "swin")
