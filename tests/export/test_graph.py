"""The exported graph is the detector: same numbers, for any batch, size and padding."""

import sys

import pytest
import torch

from kddetr.errors import UsageError
from kddetr.export import compare, export_file, open_file
from tests.export.graphs import CARD, assert_same_detections, graph_of, padded_batch
from tests.tiny import FAMILIES, tiny_batch


@pytest.mark.parametrize("family", FAMILIES)
def test_of_an_image_alone_it_is_the_detector_and_what_is_in_the_padding_does_not_matter(family):
    graph = graph_of(family)
    (x,) = tiny_batch(((48, 56),), boxes=(None,))
    expected = graph.detector([x])[0]["instances"]
    boxes, scores, classes = graph(x["image"][None].float(), torch.tensor([[48, 56]]))
    whole = (boxes[0, :, 2:] > boxes[0, :, :2]).all(-1)  # Detectron2 drops boxes without an area
    torch.testing.assert_close(boxes[0][whole], expected.pred_boxes.tensor)
    torch.testing.assert_close(scores[0][whole], expected.scores)
    assert torch.equal(classes[0][whole], expected.pred_classes)
    images, sizes = padded_batch()
    black = images.clone()
    black[0, :, 40:] = black[1, :, :, 40:] = 0
    for one, other in zip(graph(images, sizes), graph(black, sizes), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("family", FAMILIES)
def test_of_a_padded_batch_it_is_the_detector_with_padded_backbone_batching(family):
    """The graph computes what DETR does: see ``backbone_batching`` of DetectionTransformer."""
    graph = graph_of(family, backbone_batching="padded")
    inputs = tiny_batch(((40, 56), (48, 40)), boxes=(None, None))
    images = torch.zeros(2, 3, 48, 56)
    for image, x in zip(images, inputs, strict=True):
        height, width = x["image"].shape[-2:]
        image[:, :height, :width] = x["image"]
    found, expected = (
        graph.detector.decode(memory, graph.detector.queries(memory)).last()
        for memory in (
            graph.memory(images, torch.tensor([[40, 56], [48, 40]])),
            graph.detector.encode(inputs),
        )
    )
    torch.testing.assert_close(found.logits, expected.logits)
    torch.testing.assert_close(found.boxes, expected.boxes)


@pytest.mark.parametrize("family", FAMILIES)
def test_torchscript_also_of_images_with_fewer_tokens_than_proposals(family, tmp_path):
    graph = graph_of(family, num_queries=30, num_detections=70)
    file = tmp_path / "model.ts"
    export_file(graph, file, "torchscript", padded_batch(), CARD, sampling="gather")
    run, card = open_file(file, "torchscript")
    assert card == CARD
    assert_same_detections(run, graph)
    small = torch.rand(1, 3, 16, 16) * 255, torch.tensor([[16, 16]])
    assert compare(run(*small), graph(*small), 16).apart == 0
    if graph.ranks_proposals:
        assert graph(*small)[0].shape[1] < graph(*padded_batch())[0].shape[1]


def test_exchanged_proposals_are_told_from_wrong_ones():
    """DINO gives a proposal content by its rank, so other ranks are other detections."""
    graph = graph_of("dino")
    graph.raw = True
    out = graph(*padded_batch())
    assert graph.outputs[-1] == "proposals" and len(out) == len(graph.outputs)
    same, gap = graph.at_proposals(*padded_batch(), out[-1])
    assert gap == 0 and compare(same, out, 56).largest == 0
    exchanged = out[-1].flip(1)
    other, gap = graph.at_proposals(*padded_batch(), exchanged)
    assert gap > 1e-3 and compare(other, out, 56).apart
    assert torch.equal(other[-1], exchanged)


def test_detections_are_compared_whatever_their_order():
    boxes = torch.tensor([[[0.0, 0, 10, 10], [5, 5, 20, 20]]])
    scores, classes = torch.tensor([[0.5, 0.4]]), torch.tensor([[1, 2]])
    one = (boxes, scores, classes)
    assert compare(one, tuple(t.flip(1) for t in one), 20).largest == 0
    moved = compare((boxes + 1, scores, classes), one, 20)
    assert moved.largest == pytest.approx(0.05) and moved.apart == 4
    assert moved.best_apart == pytest.approx(0.5)
    assert compare((boxes, scores, classes + 1), one, 20).largest == torch.inf


def test_a_pytorch_that_is_too_old_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "__version__", "2.5.1")
    for form in ("onnx", "torch"):
        with pytest.raises(UsageError, match=r"needs PyTorch 2.6 or newer, and this is 2.5.1"):
            export_file(
                graph_of("dab_detr"), tmp_path / "x", form, padded_batch(), CARD, sampling="gather"
            )


def test_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(UsageError, match=r"needs the package onnxscript.*\[export\]"):
        export_file(
            graph_of("dab_detr"), tmp_path / "x", "onnx", padded_batch(), CARD, sampling="gather"
        )
