"""Detectors of the transformers package: what they answer is what the package computes."""

import socket

import pytest
import torch
from torch import nn

from kddetr.detectors import huggingface_detector
from kddetr.detectors.detr.matcher import target_of
from kddetr.detectors.hf.images import batch_of, resized
from kddetr.errors import UsageError
from kddetr.structures import Detector, Queries, queries_are_boxes
from tests.in_double import precision
from tests.tiny import CLASSES, tiny_batch, tiny_detector
from tests.tiny_huggingface import MEMBERS, REASON, SETTINGS, SIZE, tiny_huggingface

pytest.importorskip("transformers", reason=REASON)


@pytest.fixture(params=MEMBERS)
def member(request):
    return request.param


@pytest.fixture(params=["rt_detr_v2", "d_fine"])
def kind(request):
    """One member of each kind of decoder; tests/live has all of them at full size."""
    return request.param


def close(a, b, atol=1e-5):
    torch.testing.assert_close(a, b, atol=atol, rtol=0)


def pixels(batch):
    """What the package's model gets: squares of values from 0 to 1."""
    return batch_of(batch, SIZE, torch.device("cpu")) / 255


def labels(batch):
    targets = [target_of(x["instances"], torch.device("cpu")) for x in batch]
    return [{"class_labels": t.labels, "boxes": t.boxes} for t in targets]


def test_own_queries_give_the_packages_own_output(member):
    with precision(torch.float64), torch.no_grad():
        detector, batch = tiny_huggingface(member).eval(), tiny_batch()
        assert isinstance(detector, Detector) and queries_are_boxes(detector)
        memory = detector.encode(batch)
        own = detector.queries(memory)
        found = detector.decode(memory, own)
        expected = detector.stock(pixels(batch))
        assert found.logits.shape == (2, 2, 6, CLASSES) and own.boxes.shape == (2, 6, 4)
        close(found.logits[-1], expected.logits, 1e-12)
        close(found.boxes[-1], expected.pred_boxes, 1e-12)
        assert found.boxes[-1].std(1).mean() > 0.01  # else nothing is compared
        last = detector.decode(memory, own, layers=[-1])
        close(last.logits, found.logits[1:], 1e-12)
        first = detector.decode(memory, own, layers=[0])
        close(first.boxes, found.boxes[:1], 1e-12)
        assert not torch.allclose(first.logits, last.logits)


def test_detections_are_those_of_the_packages_post_processing(kind):
    from transformers import RTDetrImageProcessor

    detector, batch = tiny_huggingface(kind).eval(), tiny_batch()
    detector.num_detections = 6  # the package takes as many as there are queries
    with torch.no_grad():
        outputs = detector.stock(pixels(batch))
        sizes = [(x["height"], x["width"]) for x in batch]
        expected = RTDetrImageProcessor().post_process_object_detection(outputs, 0.0, sizes)
        for found, theirs, size in zip(detector(batch), expected, sizes, strict=True):
            found, boxes = found["instances"], theirs["boxes"].clone()
            boxes[:, 0::2].clamp_(0, size[1])
            boxes[:, 1::2].clamp_(0, size[0])
            kept = (boxes[:, 2:] > boxes[:, :2]).all(1)
            close(found.pred_boxes.tensor, boxes[kept], 1e-4)
            close(found.scores, theirs["scores"][kept])
            assert torch.equal(found.pred_classes, theirs["labels"][kept])


def test_losses_are_the_packages_own(member):
    """With its matching and its random denoising queries, in training mode."""
    batch = tiny_batch(boxes=(3, 0))
    with precision(torch.float64):
        ours, theirs = (tiny_huggingface(member).train() for _ in range(2))
        torch.manual_seed(5)
        found = ours(batch)
        torch.manual_seed(5)
        expected = theirs.stock(pixels(batch), labels=labels(batch))
        assert found.keys() == expected.loss_dict.keys()
        assert any(name.endswith("_dn_1") for name in found)
        for name, value in expected.loss_dict.items():
            close(found[name], value, 1e-12)
        sum(found.values()).backward()
        expected.loss.backward()
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(a.grad, b.grad, atol=1e-10, rtol=1e-8)
        for a, b in zip(ours.buffers(), theirs.buffers(), strict=True):
            close(a, b, 1e-12)  # the statistics of batch norms, updated once


def test_grouped_is_separate_and_batched_is_single(kind):
    detector = tiny_huggingface(kind).eval()
    batch = tiny_batch(((40, 56), (200, 33)), boxes=(1, 1))
    with torch.no_grad():
        memory = detector.encode(batch)
        own = detector.queries(memory).named("own")
        other = detector.make_queries(memory, torch.rand(1, 5, 4)).named("other")
        joined = Queries.join([own, other])
        together = detector.decode(memory, joined).split(joined.groups)
        for part in (own, other):
            (name,) = part.groups
            alone = detector.decode(memory, part)
            close(together[name].logits, alone.logits)
            close(together[name].boxes, alone.boxes)
        for i, x in enumerate(batch):
            single = detector.encode([x])
            found = detector.decode(single, detector.queries(single))
            close(found.logits[:, 0], together["own"].logits[:, i])
            close(found.boxes[:, 0], together["own"].boxes[:, i])
        seeing = Queries(
            joined.boxes, joined.content, groups=joined.groups, attends_to={"other": ["own"]}
        )
        found = detector.decode(memory, seeing).split(joined.groups)
        close(found["own"].logits, together["own"].logits)
        assert not torch.allclose(found["other"].logits, together["other"].logits, atol=1e-3)
        nothing = detector.decode(memory, own.first(0))
        assert nothing.logits.shape == (2, 2, 0, CLASSES)


def test_images_without_boxes_and_without_labels(kind):
    """The names of the losses never change, and every weight gets a gradient."""
    detector = tiny_huggingface(kind).train()
    usual = detector(tiny_batch())
    for boxes in ((0, 0), (None, None)):
        detector.zero_grad()
        found = detector(tiny_batch(boxes=boxes))
        assert found.keys() == usual.keys() and all(v.isfinite() for v in found.values())
        assert any(v.item() for v in found.values()) == (boxes == (0, 0))
        sum(found.values()).backward()
        trained = {n: p for n, p in detector.named_parameters() if p.requires_grad}
        assert [n for n, p in trained.items() if p.grad is None] == []
    detector.eval()  # without the statistics of the batch, an unlabelled image changes nothing
    torch.manual_seed(0)
    half = detector.losses(detector.encode(batch := tiny_batch(boxes=(3, None))), batch)
    torch.manual_seed(0)
    alone = detector.losses(detector.encode(batch[:1]), batch[:1])
    for name, value in alone.items():
        close(half[name], value)


def test_half_precision(kind):
    detector, batch = tiny_huggingface(kind).train(), tiny_batch()
    torch.manual_seed(0)
    exact = sum(detector(batch).values())
    torch.manual_seed(0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        total = sum(detector(batch).values())
        memory = detector.encode(batch)
        own = detector.queries(memory).named("own")
        other = detector.make_queries(memory, own.boxes).named("other")
        found = detector.decode(memory, Queries.join([own, other]))
    assert found.logits.dtype == found.boxes.dtype == own.boxes.dtype == torch.float32
    total.backward()
    assert total.item() == pytest.approx(exact.item(), rel=0.2)


def test_content_is_that_of_the_token_that_stands_for_the_box():
    detector, batch = tiny_huggingface().eval(), tiny_batch()
    memory = detector.encode(batch)
    own, ranking = detector.queries(memory), detector.ranking(memory)
    assert torch.equal(detector.make_queries(memory, own.boxes).content, own.content)
    points = Queries(own.boxes, torch.rand(2, 6, 99)).named("of another width")
    converted = detector.convert_queries(memory, points)
    assert torch.equal(converted.content, own.content) and converted.groups == points.groups
    detector.content = "anchor"
    box = torch.tensor([[[0.19, 0.8, 0.05, 0.05], [0.19, 0.8, 0.2, 0.2]]])
    found = detector.make_queries(memory, box).content
    # The second of 8 columns and the seventh of 8 rows; the first of 2 columns and the last row.
    close(found, ranking.features[:, [6 * 8 + 1, 64 + 16 + 2]], 0)
    with pytest.raises(UsageError, match="make_queries"):
        detector.random_queries(memory, 1, 5)
    with pytest.raises(UsageError, match="convert_queries"):
        detector.decode(memory, own.boxes_only())
    embeddings = tiny_detector("deformable_detr")
    with pytest.raises(UsageError, match="a centre but no size"):
        detector.convert_queries(memory, embeddings.queries(embeddings.encode(batch)))


def test_images_are_prepared_as_by_the_package():
    from transformers import RTDetrImageProcessor

    detector = tiny_huggingface(pixel_mean=[124, 116, 104], pixel_std=[58, 57, 57])
    batch = tiny_batch(((40, 56), (300, 201)), boxes=(1, 1))
    processor = RTDetrImageProcessor(
        size={"height": 64, "width": 64},
        do_normalize=True,
        image_mean=[124 / 255, 116 / 255, 104 / 255],
        image_std=[58 / 255, 57 / 255, 57 / 255],
    )
    expected = processor([x["image"] for x in batch], return_tensors="pt")["pixel_values"]
    images = batch_of(batch, SIZE, torch.device("cpu"))
    close((images - detector.pixel_mean) / detector.pixel_std, expected)
    assert resized(batch[0]["image"], (40, 56)) is batch[0]["image"]


def test_multi_scale_training_draws_a_size_for_each_batch():
    detector, batch = tiny_huggingface(train_sizes=[32, 64]), tiny_batch()
    detector.train()
    assert {detector.encode(batch).shapes[0] for _ in range(12)} == {(4, 4), (8, 8)}
    detector.eval()
    assert {detector.encode(batch).shapes[0] for _ in range(3)} == {(8, 8)}


def test_feature_maps():
    detector = tiny_huggingface()
    memory = detector.encode(tiny_batch())
    maps = detector.feature_maps(memory)
    for name in ("neck", "encoder"):
        assert [m.shape for m in maps[name]] == [(2, 16, n, n) for n in (8, 4, 2)]
    close(maps["encoder"][0].flatten(2).transpose(1, 2), memory.tokens[:, :64], 0)


@pytest.mark.parametrize(
    ("model_type", "words"),
    [
        ("detr", "no reference boxes"),
        ("grounding-dino", "asks for a text"),
        ("deformable_detr", "kddetr.detectors.deformable_detr"),
        ("rf_detr", "docs/realtime.md"),
        ("d_fin", "did you mean d_fine"),
        ("bert", "the types that can are rt_detr"),
    ],
)
def test_other_models_are_refused_by_name(model_type, words):
    with pytest.raises(UsageError, match=words):
        huggingface_detector(model_type, num_classes=1)


def test_nothing_is_fetched_that_was_not_asked_for(monkeypatch):
    def connect(*_):
        raise AssertionError("a detector that is built from its settings needs no network")

    monkeypatch.setattr(socket.socket, "connect", connect)
    detector = huggingface_detector("d_fine", num_classes=3, settings=SETTINGS["d_fine"])
    assert detector.image_size == (640, 640) and detector.num_classes == 3


def test_wrong_settings_are_refused():
    def build(member="rt_detr_v2", settings=None, **options):
        settings = {**SETTINGS[member], **(settings or {})}
        return huggingface_detector(member, num_classes=3, settings=settings, **options)

    with pytest.raises(UsageError, match=r"no layers_of_decoder: see transformers\.RTDetrV2Con"):
        build(settings={"layers_of_decoder": 3})
    with pytest.raises(UsageError, match="transformers"):
        build(settings={"decoder_layers": "three"})
    with pytest.raises(UsageError, match="eval_idx=0"):
        build("d_fine", {"eval_idx": 0})
    with pytest.raises(UsageError, match="learn_initial_query"):
        build(settings={"learn_initial_query": True})
    with pytest.raises(ValueError, match="multiples of 32"):
        build(image_size=[64, 100])
    with pytest.raises(ValueError, match="one of 'prediction', 'anchor'"):
        build(image_size=[64, 64], content="nearest")


def test_a_package_whose_parts_have_moved_is_refused(monkeypatch):
    from transformers.models.rt_detr_v2 import modeling_rt_detr_v2 as module

    def other(self, queries, memory):
        """A decoder with other arguments."""

    monkeypatch.setattr(module.RTDetrV2Decoder, "forward", other)
    with pytest.raises(UsageError, match=r"forward\(inputs_embeds\).*install a version that is t"):
        tiny_huggingface()
    monkeypatch.undo()
    monkeypatch.delattr(module, "get_contrastive_denoising_training_group")
    with pytest.raises(UsageError, match="get_contrastive_denoising_training_group"):
        tiny_huggingface()


def test_new_weights_let_the_image_through(member):
    """Batch norms begin as they are, not near 0, and what the package begins in a way of its own
    has kept it.
    """
    torch.manual_seed(0)
    model = huggingface_detector(
        member, num_classes=CLASSES, settings=SETTINGS[member], image_size=SIZE
    ).eval()
    stock = model.stock
    scales = [m.weight for m in stock.modules() if isinstance(m, nn.BatchNorm2d)]
    assert scales and all(bool((scale == 1).all()) for scale in scales)
    # Nothing of the package's deviation, 0.01, is left in the encoder and the decoder.
    parts = (stock.model.encoder, stock.model.decoder)
    layers = [m for part in parts for m in part.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    assert all(m.weight.std() > 0.03 for m in layers if m.weight.any())
    close(torch.sigmoid(stock.model.enc_score_head.bias), torch.full((CLASSES,), 1 / (CLASSES + 1)))
    offsets = stock.model.decoder.layers[0].encoder_attn.sampling_offsets
    assert not offsets.weight.any() and offsets.bias.any()
    assert not stock.model.decoder.bbox_embed[0].layers[-1].weight.any()
    ranking = model.ranking(model.encode(tiny_batch()))
    assert torch.equal(ranking.boxes, ranking.anchors.expand_as(ranking.boxes))
