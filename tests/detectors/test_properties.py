"""What every detector of the family promises, whichever parts it is made of."""

import pytest
import torch

from kddetr.detectors import CachedEncoder, deformable_detr
from kddetr.structures import Detector, Queries
from tests.tiny import FAMILIES, tiny_batch, tiny_detector


def close(a, b, atol=1e-5):
    torch.testing.assert_close(a, b, atol=atol, rtol=0)


@pytest.fixture(params=FAMILIES)
def detector(request):
    return tiny_detector(request.param)


def answers(detector, batch):
    memory = detector.encode(batch)
    return detector.decode(memory, detector.queries(memory))


def test_is_a_detector(detector):
    assert isinstance(detector, Detector)


@pytest.mark.parametrize("training", [True, False])
def test_batched_is_single_and_padded_is_unpadded(detector, training):
    """An image gets the same answers alone and beside a larger one."""
    detector.train(training)
    batch = tiny_batch(((40, 56), (56, 40), (33, 47), (40, 56)), boxes=(1, 1, 1, 1))
    together = answers(detector, batch)
    for i, x in enumerate(batch):
        alone = answers(detector, [x])
        close(alone.logits[:, 0], together.logits[:, i])
        close(alone.boxes[:, 0], together.boxes[:, i])


def test_own_queries_give_own_detections(detector):
    detector.eval()
    batch = tiny_batch()
    last = answers(detector, batch).last()
    sizes = [tuple(x["image"].shape[-2:]) for x in batch]
    for found, output in zip(detector.detections(last, sizes), detector(batch), strict=True):
        kept = output["instances"]
        close(found.scores[: len(kept)], kept.scores)  # clipping may drop empty boxes, not reorder
        assert kept.image_size == found.image_size


def test_grouped_is_separate(detector):
    """Groups of one pass answer as if each had a pass of its own."""
    batch = tiny_batch()
    memory = detector.encode(batch)
    own = detector.queries(memory).named("own")
    fresh = detector.fresh_queries(memory, torch.rand(1, 5, 4)).named("fresh")
    joined = Queries.join([own, fresh])
    split = detector.decode(memory, joined).split(joined.groups)
    for part in (own, fresh):
        (name,) = part.groups
        alone = detector.decode(memory, part)
        close(split[name].logits, alone.logits)
        close(split[name].boxes, alone.boxes)


def test_a_second_question_changes_no_gradient(detector):
    """Projections of the memory are shared between questions; gradients add up all the same."""
    batch = tiny_batch()

    def gradients(share):
        detector.zero_grad()
        memory = detector.encode(batch)
        total = 0
        for _ in range(2):
            if not share:
                memory = detector.encode(batch)
            out = detector.decode(memory, detector.queries(memory))
            total = total + out.logits.square().mean() + out.boxes.square().mean()
        total.backward()
        return [p.grad for p in detector.parameters() if p.grad is not None]

    for shared, separate in zip(gradients(True), gradients(False), strict=True):
        torch.testing.assert_close(shared, separate, atol=1e-5, rtol=1e-4)


def test_every_parameter_learns(detector):
    sum(detector.train()(tiny_batch()).values()).backward()
    silent = [n for n, p in detector.named_parameters() if p.requires_grad and p.grad is None]
    # Scaling the spatial query by content begins at the second layer, in DAB-DETR too.
    assert silent == []


def test_images_without_boxes_and_without_labels(detector):
    detector.train()
    background = detector(tiny_batch(boxes=(0, 0)))
    assert all(torch.isfinite(v) for v in background.values())
    assert background["loss_bbox"].item() == 0 and background["loss_class"].item() > 0
    half = detector(tiny_batch(boxes=(3, None)))
    labelled = detector(tiny_batch()[:1])
    for name in labelled:
        close(half[name], labelled[name])
    nothing = detector(tiny_batch(boxes=(None, None)))
    assert nothing.keys() == labelled.keys() and not any(v.item() for v in nothing.values())
    sum(nothing.values()).backward()  # with several processes every parameter needs a gradient
    assert all(p.grad is not None for p in detector.parameters() if p.requires_grad)


@pytest.mark.parametrize("size", [(1, 40), (8, 8), (64, 9)])
def test_odd_images(detector, size):
    for training in (True, False):
        detector.train(training)
        out = answers(detector, tiny_batch((size, (40, 40)), boxes=(1, 1)))
        assert torch.isfinite(out.logits).all() and torch.isfinite(out.boxes).all()


def test_bfloat16_on_cpu(detector):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = detector.train()(tiny_batch())
        total = sum(losses.values())
    total.backward()
    exact = sum(detector(tiny_batch()).values())
    assert total.dtype == torch.float32
    assert total.item() == pytest.approx(exact.item(), rel=0.1)


def test_queries_of_another_kind_are_refused_in_one_sentence():
    anchors, embeddings = tiny_detector("dab_detr"), tiny_detector("deformable_detr")
    batch = tiny_batch()
    for asked, asking in ((anchors, embeddings), (embeddings, anchors)):
        memory = asked.encode(batch)
        other = asking.queries(asking.encode(batch))
        with pytest.raises(ValueError, match="detector"):
            asked.decode(memory, other)
    wide = tiny_detector("deformable_detr", width=32)
    with pytest.raises(ValueError, match="32 wide"):
        embeddings.decode(embeddings.encode(batch), wide.queries(wide.encode(batch)))


def test_anchors_need_refinement():
    with pytest.raises(ValueError, match="refine=True"):
        deformable_detr(backbone=None, num_classes=1, anchor_queries=True, refine=False)


def test_a_remembered_encoding_answers_as_a_fresh_one(detector):
    detector.eval()
    cached = CachedEncoder(detector, dtype="float32")
    batch = tiny_batch(((40, 56), (40, 56)))
    with torch.no_grad():
        wanted = answers(detector, batch)
        for order in ([0, 1], [1, 0], [1]):
            found = answers(cached, [batch[i] for i in order])
            close(found.logits, wanted.logits[:, order])
            close(found.boxes, wanted.boxes[:, order])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = answers(CachedEncoder(detector), batch)
            close(found.boxes, wanted.boxes, atol=0.1)
        batch[0]["image"] = batch[0]["image"].flip(-1)
        with pytest.raises(ValueError, match="augmentation"):
            cached.encode(batch)
        with pytest.raises(ValueError, match="one size"):
            cached.encode(tiny_batch())
