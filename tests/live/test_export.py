"""Every family as ONNX and as torch.export's file: PyTorch's exporters take ten seconds or more for
each detector, however small it is.
"""

import json
import re

import pytest
import torch

from kddetr.detectors import dab_detr, swin, timm_backbone
from kddetr.errors import UsageError
from kddetr.export import ENDINGS, DetectionGraph, compare, export_file, open_file
from tests.export.graphs import CARD, assert_same_detections, graph_of, padded_batch
from tests.tiny import FAMILIES
from tests.tools.export_runs import NAMES, exported, leave_run

pytestmark = pytest.mark.live


@pytest.mark.parametrize("family", FAMILIES)
def test_torch_export(family, tmp_path):
    graph = graph_of(family)
    file = tmp_path / "model.pt2"
    export_file(graph, file, "torch", padded_batch(), CARD, sampling="gather")
    run, card = open_file(file, "torch")
    assert card == CARD
    assert_same_detections(run, graph)


@pytest.mark.parametrize("sampling", ["gather", "grid_sample"])
@pytest.mark.parametrize("family", FAMILIES)
def test_onnx(family, sampling, tmp_path):
    graph = graph_of(family)
    file = tmp_path / "model.onnx"
    export_file(graph, file, "onnx", padded_batch(), CARD, sampling=sampling)
    run, card = open_file(file, "onnx")
    assert card == CARD
    assert_same_detections(run, graph)
    samples = sampling == "grid_sample" and family != "dab_detr"
    assert (b"GridSample" in file.read_bytes()) == samples


def small_swin(out_features: list[str]) -> torch.nn.Module:
    return swin(size="tiny", out_features=out_features)


def small_resnet(out_features: list[str]) -> torch.nn.Module:
    return timm_backbone(name="resnet10t", out_features=out_features)


@pytest.mark.parametrize(
    "make, step, form",
    [(small_resnet, 32, "torch"), (small_resnet, 32, "onnx"), (small_swin, 4, "onnx")],
)
def test_a_backbone_of_timm_takes_sides_that_are_multiples_of_what_it_pads_to(
    make, step, form, tmp_path
):
    torch.manual_seed(0)
    detector = dab_detr(
        backbone=make(["res2", "res3"]),
        num_classes=3,
        in_feature="res3",
        embed_dim=16,
        num_heads=4,
        feedforward_dim=24,
        encoder_layers=1,
        decoder_layers=2,
        num_queries=6,
    )
    graph = DetectionGraph(detector.eval().requires_grad_(False)).eval()
    assert graph.size_divisor == step
    file = tmp_path / "model"
    inputs = torch.rand(2, 3, 64, 96) * 255, torch.tensor([[64, 70], [50, 96]])
    export_file(graph, file.with_suffix(ENDINGS[form]), form, inputs, CARD, sampling="gather")
    run, _ = open_file(file.with_suffix(ENDINGS[form]), form)
    sides = (96 + step, 64 + step)
    other = torch.rand(1, 3, *sides) * 255, torch.tensor([sides])
    for given in (inputs, other):
        assert compare(run(*given), graph(*given), 128).apart == 0


def test_a_swin_as_file_of_torch_export_is_refused_in_one_sentence(tmp_path):
    detector = dab_detr(backbone=small_swin(["res2"]), num_classes=3, in_feature="res2")
    graph = DetectionGraph(detector.eval()).eval()
    with pytest.raises(UsageError, match="take --format onnx"):
        export_file(graph, tmp_path / "x.pt2", "torch", padded_batch(), CARD, sampling="gather")
    with pytest.raises(UsageError, match="at least 29 pixels"):
        small = torch.rand(2, 3, 28, 96), torch.tensor([[28, 96], [28, 90]])
        export_file(graph, tmp_path / "x.onnx", "onnx", small, CARD, sampling="gather")


@pytest.mark.parametrize("form", ["torch", "onnx"])
def test_the_tool_writes_raw_outputs_and_the_card(form, tmp_path, capsys):
    weights = str(leave_run(tmp_path, "dino") / "model_final.pth")
    file = tmp_path / f"model{ENDINGS[form]}"
    code, text = exported(
        *(capsys, "--weights", weights, "--format", form, "--output", str(file), "--raw"),
        *("--image-size", "64", "80", "--repetitions", "1"),
    )
    assert code == 0, text
    found = re.findall(r"at the same proposals: (?:logits )?(\S+?),?\s", text)
    assert len(found) == 4 and max(map(float, found)) <= 1e-4, text
    run, card = open_file(file, form)
    assert json.loads(card["classes"]) == NAMES and json.loads(card["image_size"]) == [64, 80]
    assert len(run(torch.rand(1, 3, 70, 90) * 255, torch.tensor([[70, 90]]))) == 6
