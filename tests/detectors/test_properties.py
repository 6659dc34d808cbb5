"""Properties that every detection transformer has."""

import pytest
import torch

from kddetr.detectors import HungarianMatcher, deformable_detr
from kddetr.detectors.detr.queries import AnchorQueries
from kddetr.errors import UsageError
from kddetr.structures import Detector, Queries, queries_are_boxes
from tests.tiny import CLASSES, FAMILIES, tiny_batch, tiny_detector


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
    """An image gets the same answers alone and in a padded batch."""
    detector.train(training)
    if getattr(detector.decoder.position, "padded", False):
        detector.decoder.position.padded = False  # the only place where DINO depends on padding
    batch = tiny_batch(((40, 56), (56, 40), (33, 47), (40, 56)), boxes=(1, 1, 1, 1))
    together = answers(detector, batch)
    for i, x in enumerate(batch):
        alone = answers(detector, [x])
        close(alone.logits[:, 0], together.logits[:, i])
        close(alone.boxes[:, 0], together.boxes[:, i])


def test_dino_embeds_boxes_in_the_frame_of_the_padded_batch():
    detector = tiny_detector("dino")
    same = tiny_batch(((40, 56), (40, 56)))
    for i, x in enumerate(same):
        close(answers(detector, [x]).logits[:, 0], answers(detector, same).logits[:, i])
    padded = tiny_batch(((40, 56), (80, 112)))
    alone, beside = answers(detector, padded[:1]), answers(detector, padded)
    assert not torch.allclose(alone.logits[:, 0], beside.logits[:, 0], atol=1e-3)


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
    """Groups of queries in one pass get the answers that each gets in a pass of its own."""
    batch = tiny_batch()
    memory = detector.encode(batch)
    own = detector.queries(memory).named("own")
    if queries_are_boxes(detector):
        other = detector.make_queries(memory, torch.rand(1, 5, 4)).named("other")
    else:
        other = detector.random_queries(memory, 1, 5).named("other")
    joined = Queries.join([own, other])
    split = detector.decode(memory, joined).split(joined.groups)
    for part in (own, other):
        (name,) = part.groups
        alone = detector.decode(memory, part)
        close(split[name].logits, alone.logits)
        close(split[name].boxes, alone.boxes)


def test_decoding_one_memory_twice_gives_the_same_gradients(detector):
    """Two passes share the projections of the memory, and their gradients add up."""
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


def test_every_parameter_gets_a_gradient(detector):
    sum(detector.train()(tiny_batch()).values()).backward()
    assert [n for n, p in detector.named_parameters() if p.requires_grad and p.grad is None] == []


def test_images_without_boxes_and_without_labels(detector):
    detector.train()
    background = detector(tiny_batch(boxes=(0, 0)))
    assert all(torch.isfinite(v) for v in background.values())
    assert background["loss_bbox"].item() == 0 and background["loss_class"].item() > 0
    same = tiny_batch(((40, 56), (40, 56)), boxes=(3, None))
    torch.manual_seed(0)  # of the noise in denoising queries
    half = detector(same)
    torch.manual_seed(0)
    labelled = detector(same[:1])
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


def test_queries_of_another_kind_are_refused():
    anchors, embeddings = tiny_detector("dab_detr"), tiny_detector("deformable_detr")
    batch = tiny_batch()
    for asked, asking in ((anchors, embeddings), (embeddings, anchors)):
        memory = asked.encode(batch)
        other = asking.queries(asking.encode(batch))
        with pytest.raises(UsageError, match="convert_queries"):
            asked.decode(memory, other)
        with pytest.raises(UsageError, match="take the points of"):
            asked.convert_queries(memory, other)
    wide = tiny_detector("deformable_detr", embed_dim=32)
    with pytest.raises(UsageError, match="32 wide"):
        embeddings.decode(embeddings.encode(batch), wide.queries(wide.encode(batch)))


def test_own_queries_are_converted_to_themselves(detector):
    memory = detector.encode(tiny_batch())
    own = detector.queries(memory).named("own")
    converted = detector.convert_queries(memory, own)
    assert converted.groups == own.groups
    for name in ("boxes", "content", "position"):
        before, after = getattr(own, name), getattr(converted, name)
        assert (before is None) == (after is None)
        if before is not None:
            close(after, before)


def test_a_detector_makes_queries_at_boxes_or_random_ones(detector):
    """Each kind does one of the two and refuses the other."""
    memory = detector.encode(tiny_batch())
    boxes = torch.rand(1, 5, 4)
    if queries_are_boxes(detector):
        made = detector.make_queries(memory, boxes)
        close(made.boxes, boxes.expand(2, -1, -1))
        with pytest.raises(UsageError, match="use make_queries"):
            detector.random_queries(memory, 1, 5)
    else:
        made = detector.random_queries(memory, 1, 5)
        assert made.boxes.shape == (2, 5, 2)
        with pytest.raises(UsageError, match="take general and specific points"):
            detector.make_queries(memory, boxes)
    for name, width in detector.query_parts.items():
        assert getattr(made, name).shape == (2, 5, width)


def test_no_query_gets_no_answer(detector):
    memory = detector.encode(tiny_batch())
    own = detector.queries(memory)
    found = detector.decode(memory, own.first(0))
    assert found.logits.shape == (2, 2, 0, CLASSES) and found.boxes.shape == (2, 2, 0, 4)
    joined = Queries.join([own.named("own"), own.first(0).named("none")])
    close(detector.decode(memory, joined).logits, detector.decode(memory, own).logits)


@pytest.mark.parametrize("family", FAMILIES)
def test_activation_checkpointing_changes_nothing(family):
    """The recomputed layers draw the same random numbers for dropout."""
    detector = tiny_detector(family, dropout=0.3)
    batch = tiny_batch()

    def gradients(recompute):
        detector.train().zero_grad()
        for part in (detector.encoder, detector.decoder):
            part.checkpoint_activations = recompute
        torch.manual_seed(0)
        losses = detector(batch)
        sum(losses.values()).backward()
        return losses, [p.grad for p in detector.parameters() if p.grad is not None]

    for kept, recomputed in zip(*(gradients(r) for r in (False, True)), strict=True):
        torch.testing.assert_close(kept, recomputed, atol=1e-7, rtol=1e-5)


def test_an_unknown_variant_is_refused():
    with pytest.raises(ValueError, match=r"one of 'plain'.*'anchors', not 'three_stage'"):
        deformable_detr(backbone=None, num_classes=1, variant="three_stage")


@pytest.mark.parametrize("size", [None, 0.25])
def test_initial_anchors_are_drawn_as_asked(size):
    def drawn(centres):
        torch.manual_seed(0)
        return AnchorQueries(4000, size=size, centres=centres).anchors.detach()

    uniform, normal = drawn("uniform"), drawn("normal_logit")
    assert torch.equal(uniform[:, 2:], normal[:, 2:])
    # 4,000 draws lie within 5 of their standard errors: of a share at most 5 * sqrt(0.25 / 4000).
    close(uniform[:, :2].sigmoid().le(0.25).float().mean(0), torch.tensor([0.25] * 2), atol=0.04)
    close(normal[:, :2].abs().le(1).float().mean(0), torch.tensor([0.6827] * 2), atol=0.04)


def test_wrong_images_and_classes_are_refused(detector):
    for shape in ((1, 40, 40), (4, 40, 40), (40, 40), (3, 0, 40)):
        with pytest.raises(UsageError, match="RGB"):
            detector.encode([{"image": torch.zeros(shape, dtype=torch.uint8)}])
    batch = tiny_batch()
    batch[0]["instances"].gt_classes[0] = 3
    with pytest.raises(UsageError, match="class 3, but this detector has 3 classes"):
        detector.train()(batch)


def test_a_matcher_with_a_call_of_its_own_is_called():
    """Also one derived from the Hungarian one, which matches several predictions at once."""

    class Counting(HungarianMatcher):
        calls = 0

        def __call__(self, predictions, targets):
            self.calls += 1
            return super().__call__(predictions, targets)

    detector = tiny_detector("dino").train()
    detector.criterion.matcher = matcher = Counting()
    detector(tiny_batch())
    assert matcher.calls == 2  # of the queries and of the proposals
