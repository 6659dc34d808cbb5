"""A load reports how much of the model it covers, and is refused where that has to be all."""

import logging

import pytest
import torch
import torchvision
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.modeling.backbone.resnet import BasicStem, ResNet
from torch import nn

from kddetr.checkpoint import (
    Checkpointer,
    CheckpointError,
    backbone_weights,
    detectron2_names,
    load_pretrained,
    load_weights,
)


class Tiny(nn.Module):
    def __init__(self, classes: int = 3):
        super().__init__()
        self.neck = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
        self.head = nn.Linear(4, classes)
        self.tied = self.head  # a second name for the same tensors


def small_resnet() -> ResNet:
    stages = ResNet.make_default_stages(18, norm="BN")
    return ResNet(BasicStem(3, 64, norm="BN"), stages, out_features=["res2", "res5"])


def test_coverage_is_counted():
    model = Tiny()
    state = Tiny(4).state_dict() | {"extra.weight": torch.zeros(1)}
    coverage = load_weights(model, state, strict=False, source="x.pth")
    assert coverage.missing == [] and coverage.unexpected == ["extra.weight"]
    assert ("head.weight", (4, 4), (3, 4)) in coverage.mismatched
    assert torch.equal(model.neck[0].weight, state["neck.0.weight"])
    text = coverage.describe()
    assert (
        text.startswith("loaded 7/11") and "head.weight 4x4 in the file, 3x4 in the model" in text
    )


def test_strict_changes_nothing_and_lists_the_names():
    model, state = Tiny(), Tiny().state_dict()
    before = model.neck[0].weight.clone()
    del state["neck.1.bias"]
    with pytest.raises(CheckpointError, match=r"missing 1: neck\.1 \(bias\)"):
        load_weights(model, state, strict=True, source="x.pth")
    assert torch.equal(model.neck[0].weight, before)


def test_one_name_of_a_shared_tensor_is_enough():
    state = {k: v for k, v in Tiny().state_dict().items() if not k.startswith("tied")}
    del state["neck.1.num_batches_tracked"]
    assert load_weights(Tiny(), state, strict=True, source="x.pth").complete


def test_nothing_fits():
    with pytest.raises(CheckpointError, match=r"None of the 2 weights in x\.pth fits the Tiny"):
        load_weights(Tiny(), nn.Bilinear(1, 1, 1).state_dict(), strict=False, source="x.pth")


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x: x.to(torch.int8), r"another kind \(torch\.int8\) .* head \(weight\)"),
        (lambda x: x.bool(), r"another kind \(torch\.bool\)"),
        (lambda x: x.to(torch.complex64), r"another kind \(torch\.complex64\)"),
    ],
)
def test_weights_of_another_kind_are_refused(strict, change, words):
    model, state = Tiny(), Tiny().state_dict()
    del state["tied.weight"], state["tied.bias"]
    before = model.neck[0].weight.clone()
    with pytest.raises(CheckpointError, match=words):
        changed = state | {"head.weight": change(state["head.weight"])}
        load_weights(model, changed, strict=strict, source="x.pth")
    assert torch.equal(model.neck[0].weight, before)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_fractions_of_any_precision_are_loaded(kind):
    model, state = Tiny(), Tiny().state_dict()
    # An average of several models has fractions where a model counts batches.
    load_weights(model, {k: v.to(kind) for k, v in state.items()}, strict=True, source="x.pth")
    assert torch.allclose(model.head.weight, state["head.weight"], atol=1e-2)


def test_load_pretrained_is_strict_freezes_and_works_in_a_config(tmp_path):
    file = str(tmp_path / "teacher.pth")
    saved = Tiny()
    torch.save({"model": saved.state_dict()}, file)
    model = instantiate(L(load_pretrained)(model=L(Tiny)(classes=3), checkpoint=file))
    assert torch.equal(model.head.weight, saved.head.weight)
    assert not model.training and not any(p.requires_grad for p in model.parameters())
    with pytest.raises(CheckpointError, match=r"head\.weight 3x4 in the file, 5x4 in the model"):
        load_pretrained(Tiny(5), file)
    with pytest.raises(CheckpointError, match=r"model\.teacher\.checkpoint=FILE"):
        load_pretrained(Tiny(), "")


@pytest.fixture(scope="module")
def imagenet():
    torch.manual_seed(0)
    model = torchvision.models.resnet18(weights=None).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 2)
    return model


def features(model: nn.Module, image: torch.Tensor) -> dict[str, torch.Tensor]:
    with torch.no_grad():
        x = model.maxpool(model.relu(model.bn1(model.conv1(image))))
        res2 = model.layer1(x)
        return {"res2": res2, "res5": model.layer4(model.layer3(model.layer2(res2)))}


@pytest.mark.parametrize("names", ["torchvision", "detectron2"])
def test_torchvision_resnet_in_a_detector(tmp_path, imagenet, caplog, names):
    class Detector(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = small_resnet()
            self.head = nn.Linear(2, 2)

    state, file = imagenet.state_dict(), str(tmp_path / "r18.pth")
    if names == "detectron2":
        state = detectron2_names(state) | {"stem.fc.weight": state["fc.weight"]}
    torch.save(state, file)
    detector = Detector().eval()
    with caplog.at_level(logging.WARNING, logger="kddetr"):
        Checkpointer(detector).load(file)
    assert "missing 2: head (weight, bias)" in caplog.text and "left over" not in caplog.text
    image = torch.randn(1, 3, 64, 64)
    expected = features(imagenet, image)
    with torch.no_grad():
        found = detector.backbone(image)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)
    assert backbone_weights(detector.state_dict(), detector) is None  # no bare ResNet
