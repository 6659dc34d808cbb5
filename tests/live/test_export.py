"""Every family as ONNX and as torch.export's file: PyTorch's exporters take ten seconds or more for
each detector, however small it is.
"""

import pytest
import torch

from kddetr.detectors import dab_detr, timm_backbone
from kddetr.export import DetectionGraph, compare, export_file, open_file
from tests.export.graphs import CARD, assert_same_detections, graph_of, padded_batch
from tests.tiny import FAMILIES

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
    pytest.importorskip("onnxruntime", reason="the extra export is not installed")
    pytest.importorskip("onnxscript", reason="the extra export is not installed")
    graph = graph_of(family)
    file = tmp_path / "model.onnx"
    export_file(graph, file, "onnx", padded_batch(), CARD, sampling=sampling)
    run, card = open_file(file, "onnx")
    assert card == CARD
    assert_same_detections(run, graph)
    samples = sampling == "grid_sample" and family != "dab_detr"
    assert (b"GridSample" in file.read_bytes()) == samples


def test_a_backbone_of_timm_takes_sides_that_are_multiples_of_what_it_pads_to(tmp_path):
    pytest.importorskip("timm")
    backbone = timm_backbone(name="resnet10t", out_features=["res2", "res3"])
    torch.manual_seed(0)
    detector = dab_detr(
        backbone=backbone,
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
    assert graph.size_divisor == 32
    inputs = torch.rand(2, 3, 64, 96) * 255, torch.tensor([[64, 70], [50, 96]])
    export_file(graph, tmp_path / "model.pt2", "torch", inputs, CARD, sampling="gather")
    run, _ = open_file(tmp_path / "model.pt2", "torch")
    other = torch.rand(1, 3, 96, 64) * 255, torch.tensor([[96, 64]])
    for given in (inputs, other):
        assert compare(run(*given), graph(*given), 96).apart == 0
