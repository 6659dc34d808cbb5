"""The own queries of an R-CNN are its best proposals, or those that came with the images."""

import pytest
import torch
from detectron2.structures import Instances
from detectron2.utils.events import EventStorage

from kddetr.boxes import cxcywh_to_xyxy
from kddetr.detectors import RegionDetector
from kddetr.detectors.stock.regions import pixel_regions
from kddetr.errors import UsageError
from tests.stock_models import tiny_c4, tiny_cascade_rcnn, tiny_faster_rcnn
from tests.tiny import tiny_batch

SIZES = ((64, 80), (56, 72))


@pytest.fixture(params=[tiny_faster_rcnn, tiny_cascade_rcnn, tiny_c4])
def detector(request) -> RegionDetector:
    torch.manual_seed(0)
    return RegionDetector(request.param(), num_queries=1000).eval()


def test_own_queries_are_the_best_proposals(detector):
    batch = tiny_batch(SIZES)
    with torch.no_grad():
        memory = detector.encode(batch)
        found = detector.queries(memory)
    proposals = memory.proposals
    for i, (height, width) in enumerate(SIZES):
        own, n = found.boxes[i], len(proposals[i])
        pixels = cxcywh_to_xyxy(own[:n]) * torch.tensor([width, height, width, height])
        torch.testing.assert_close(pixels, proposals[i].proposal_boxes.tensor, atol=1e-3, rtol=0)
        assert (proposals[i].objectness_logits.diff() <= 0).all()
        whole = torch.tensor([0.5, 0.5, 1.0, 1.0])
        assert torch.equal(own[n:], whole.expand(len(own) - n, 4))
    detector.num_queries = 3
    torch.testing.assert_close(detector.queries(memory).boxes, found.boxes[:, :3])


@pytest.mark.parametrize("boxes", [(2, 3), (2, None)], ids=["all labelled", "some labelled"])
def test_own_queries_are_those_of_evaluation_mode_and_are_computed_once(detector, boxes):
    """Also after the losses, whose proposals are made under the limits of the training mode."""
    batch, runs, generator = tiny_batch(SIZES, boxes=boxes), [], detector.stock.proposal_generator
    generator.post_nms_topk = {True: 7, False: 3}
    with EventStorage(), torch.no_grad():
        expected = detector.queries(detector.encode(batch)).boxes
        memory = detector.train().encode(batch)
        detector.losses(memory, batch)
        generator.rpn_head.register_forward_hook(lambda *_: runs.append(1))
        for _ in range(2):
            found = detector.queries(memory).boxes
            torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    assert len(runs) == 1 and found.shape[1] == 3
    assert generator.training and generator.rpn_head.training


def test_a_model_without_proposals_of_its_own(detector):
    detector.stock.proposal_generator = None
    batch = tiny_batch(SIZES)
    memory = detector.encode(batch)
    with pytest.raises(UsageError, match="no proposal generator"):
        detector.queries(memory)
    with EventStorage(), pytest.raises(UsageError, match="have no proposals"):
        detector.train()(batch)


def test_own_queries_of_a_model_without_a_generator_are_the_proposals_of_the_images(detector):
    detector.stock.proposal_generator = None
    batch, box = tiny_batch(SIZES), torch.tensor([[[0.2, 0.3, 0.4, 0.2]]])
    for x, size in zip(batch, SIZES, strict=True):
        (region,) = pixel_regions(box, [size])
        x["proposals"] = Instances(size, proposal_boxes=region, objectness_logits=torch.zeros(1))
    memory = detector.train().encode(batch)
    with EventStorage():
        assert detector.losses(memory, batch)
    for part in (memory, memory.select([1])):
        expected = box.expand(len(part), 1, 4)
        torch.testing.assert_close(detector.queries(part).boxes, expected, atol=1e-6, rtol=0)
