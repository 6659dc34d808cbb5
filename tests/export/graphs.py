"""Tiny graphs, and the batches that they are exported with and tried on."""

import torch

from kddetr.export import DetectionGraph, compare
from tests.tiny import tiny_detector

CARD = {"classes": '["a", "b", "c"]'}


def graph_of(family: str, **options) -> DetectionGraph:
    return DetectionGraph(tiny_detector(family, **options).eval().requires_grad_(False)).eval()


def padded_batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Two images, each padded in one direction, with pixels in the padding."""
    torch.manual_seed(1)
    return torch.rand(2, 3, 48, 56) * 255, torch.tensor([[40, 56], [48, 40]])


def one_image() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(2)
    return torch.rand(1, 3, 80, 64) * 255, torch.tensor([[80, 64]])


def assert_same_detections(run, graph, *, tolerance: float = 1e-4) -> None:
    for images, sizes in (padded_batch(), one_image()):
        found = compare(run(images, sizes), graph(images, sizes), 80, tolerance)
        assert found.apart == 0, found
