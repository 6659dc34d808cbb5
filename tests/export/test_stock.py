"""Traces of Detectron2's models: same detections for images larger and smaller than the traced."""

import pytest
import torch

from kddetr.detectors import detectron2_detector
from kddetr.export import StockGraph, compare, export_file, open_file
from tests.export.graphs import CARD
from tests.stock_models import tiny_fcos, tiny_retinanet

OPTIONS = {"test_topk_candidates": 100, "test_score_thresh": 0.0, "max_detections_per_image": 9999}


@pytest.mark.parametrize("make", [tiny_retinanet, tiny_fcos])
def test_a_trace_keeps_the_limit_of_candidates_that_the_traced_image_did_not_reach(make, tmp_path):
    """On 32 x 32 pixels most levels have fewer than 100 candidates, on 128 x 96 they have more."""
    detector = detectron2_detector(make(**OPTIONS), input_format="RGB")
    graph = StockGraph(detector.eval().requires_grad_(False)).eval()
    torch.manual_seed(0)
    small, large = torch.rand(3, 32, 32) * 255, torch.rand(3, 128, 96) * 255
    file = tmp_path / "model.ts"
    export_file(graph, file, "torchscript", (small,), CARD, sampling="gather")
    run, _ = open_file(file, "torchscript")
    for image in (small, large):
        found, expected = run(image), graph(image)
        assert found[0].shape == expected[0].shape
        assert compare(found, expected, 128).apart == 0
