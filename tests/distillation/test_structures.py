"""Queries of each kind of detector, as a sampler makes them through an EncodedDetector."""

import pytest
import torch

from kddetr.detectors import RegionDetector
from kddetr.errors import UsageError
from kddetr.structures import EncodedDetector, Queries
from tests.stock_models import tiny_faster_rcnn
from tests.tiny import FAMILIES, tiny_batch, tiny_detector

EMBEDDINGS = ["deformable_detr", "deformable_detr_plain"]  # one-stage: queries without boxes
BOXES = [family for family in FAMILIES if family not in EMBEDDINGS]


def detector_of(family: str):
    return RegionDetector(tiny_faster_rcnn()) if family == "stock" else tiny_detector(family)


@torch.no_grad()
def encoded(family: str) -> EncodedDetector:
    detector = detector_of(family).eval()
    return EncodedDetector(detector, detector.encode(tiny_batch()))


@pytest.mark.parametrize("family", [*BOXES, "stock"])
def test_queries_are_made_at_boxes_and_have_no_random_embeddings(family):
    asked = encoded(family)
    boxes = torch.rand(1, 5, 4) * 0.4 + 0.3
    assert torch.equal(asked.make_queries(boxes).boxes, boxes.expand(2, -1, -1))
    with pytest.raises(UsageError, match="made of boxes: draw the boxes and use make_queries"):
        asked.random_queries(1, 5)


@pytest.mark.parametrize("family", EMBEDDINGS)
def test_learned_embeddings_are_drawn_and_cannot_be_made_at_boxes(family):
    asked = encoded(family)
    with pytest.raises(
        UsageError, match=r"one-stage Deformable DETR .* cannot make a query at a box"
    ):
        asked.make_queries(torch.rand(1, 5, 4))
    shared, own = asked.random_queries(1, 5), asked.random_queries(2, 5)
    for queries in (shared, own):
        assert queries.boxes.shape == (2, 5, 2)
        assert queries.content.shape == queries.position.shape == (2, 5, 16)
    assert torch.equal(shared.content[0], shared.content[1])
    assert not torch.equal(own.content[0], own.content[1])
    assert asked.decode(shared).boxes.shape == (2, 2, 5, 4)


def test_the_former_name_fresh_queries_still_works():
    asked, boxes = encoded("dab_detr"), torch.rand(1, 5, 4)
    with pytest.warns(FutureWarning, match="now called make_queries"):
        found = asked.fresh_queries(boxes)
    assert torch.equal(found.boxes, asked.make_queries(boxes).boxes)
    with (
        pytest.warns(FutureWarning, match="now called make_queries"),
        pytest.raises(UsageError, match="cannot make a query at a box"),
    ):
        encoded("deformable_detr").fresh_queries(boxes)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"boxes": torch.rand(3, 4)}, r"must be \(B, N, 4\) or \(B, N, 2\), not \(3, 4\)"),
        ({"boxes": torch.rand(1, 3, 5)}, r"not \(1, 3, 5\)"),
        ({"content": torch.rand(1, 4, 8)}, r"content has the shape \(1, 4, 8\)"),
        ({"position": torch.rand(2, 3, 8)}, r"position has the shape \(2, 3, 8\)"),
        ({"groups": {"a": 2}}, "add up to 2 queries, but there are 3"),
        ({"groups": {"a": 3}, "attends_to": {"a": ["b"]}}, r"attends_to names \['b'\]"),
    ],
)
def test_queries_with_shapes_or_groups_that_do_not_fit_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        Queries(**{"boxes": torch.rand(1, 3, 4)} | arguments)


def test_joined_queries_keep_groups_and_need_the_same_parts():
    first = Queries(torch.rand(1, 3, 4)).named("a")
    second = Queries(torch.rand(1, 2, 4)).named("b")
    joined = Queries.join([first, second])
    assert joined.groups == {"a": 3, "b": 2}
    assert torch.equal(joined.boxes, torch.cat([first.boxes, second.boxes], dim=1))
    with pytest.raises(ValueError, match="Only some of the queries to join have a content"):
        Queries.join([first, Queries(torch.rand(1, 2, 4), content=torch.rand(1, 2, 8)).named("b")])
    with pytest.raises(ValueError, match="groups with names of its own"):
        Queries.join([first, first])
    with pytest.raises(ValueError, match="groups with names of its own"):
        Queries.join([first, Queries(torch.rand(1, 2, 4))])
