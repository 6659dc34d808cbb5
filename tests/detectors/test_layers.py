"""Decoding only some decoder layers gives what decoding all of them gives for these layers."""

import pytest
import torch
from torch import nn

from kddetr.detectors import detectron2_detector
from kddetr.errors import UsageError
from kddetr.predictions import LAST, Predictions
from kddetr.structures import EncodedDetector
from kddetr.teachers import Vocabulary
from kddetr.teachers.wrapper import TeacherWrapper
from tests.stock_models import tiny_cascade_rcnn, tiny_faster_rcnn, tiny_retinanet
from tests.tiny import FAMILIES, tiny_batch, tiny_detector

CHOICES = [LAST, (0,), (1,), (2, 0), (-1, 1), (0, 1, 2)]


def encoded(detector: nn.Module) -> EncodedDetector:
    return EncodedDetector(detector, detector.encode(tiny_batch()))


def assert_close(found: Predictions, expected: Predictions) -> None:
    torch.testing.assert_close(found.logits, expected.logits, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(found.boxes, expected.boxes, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_some_layers_equal_those_of_a_full_decoding(family):
    detector = encoded(tiny_detector(family, decoder_layers=3).eval())
    queries = detector.queries()
    whole = detector.decode(queries)
    for layers in CHOICES:
        assert_close(detector.decode(queries, layers=layers), whole.of_layers(layers))


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_of_a_layer_are_those_of_a_full_decoding(family):
    model = tiny_detector(family, decoder_layers=3)
    detector = encoded(model)
    queries = detector.queries()

    def gradients(found: Predictions) -> list[torch.Tensor]:
        loss = found.last().logits.square().sum() + found.last().boxes.square().sum()
        given = torch.autograd.grad(
            loss, list(model.parameters()), allow_unused=True, retain_graph=True
        )
        return [torch.zeros_like(p) if g is None else g for p, g in zip(model.parameters(), given)]

    found = gradients(detector.decode(queries, layers=LAST))
    for a, b in zip(found, gradients(detector.decode(queries)), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_heads_and_layers_that_are_not_needed_do_not_run():
    model = tiny_detector("deformable_detr", decoder_layers=3).eval()
    ran = []
    for part in ("layers", "class_heads"):
        for i, module in enumerate(getattr(model.decoder, part)):
            module.register_forward_hook(lambda *_, name=f"{part}.{i}": ran.append(name))
    detector = encoded(model)
    detector.decode(detector.queries(), layers=(1,))
    assert sorted(ran) == ["class_heads.1", "layers.0", "layers.1"]
    ran.clear()
    model(tiny_batch())  # detection too
    assert sorted(name for name in ran if "heads" in name) == ["class_heads.2"]


@pytest.mark.parametrize("make", [tiny_faster_rcnn, tiny_cascade_rcnn, tiny_retinanet])
def test_last_layer_of_the_models_of_detectron2(make):
    detector = encoded(detectron2_detector(make()).eval())
    queries = detector.queries()
    assert_close(detector.decode(queries, layers=LAST), detector.decode(queries).last())


class Old(TeacherWrapper):
    """A wrapper that was written before ``decode`` had an argument for layers."""

    def decode(self, memory, queries):
        return self.detector.decode(memory, queries)


def test_a_detector_without_the_argument_is_asked_for_all_layers():
    teacher = Old(tiny_detector("dino").eval())
    old = encoded(teacher)
    queries = old.queries()
    assert_close(old.decode(queries, layers=LAST), old.decode(queries).last())
    inside = Vocabulary(detector=teacher, classes=["a", "b", "c"], wanted=["c", "a"])
    chosen = EncodedDetector(inside, old.memory).decode(queries, layers=(0,))
    assert chosen.layers == (0,)
    torch.testing.assert_close(chosen.logits, old.decode(queries).logits[:1, ..., [2, 0]])


def test_layers_that_there_are_not_are_refused():
    detector = encoded(tiny_detector().eval())
    for layers in [(2,), (-3,), (1, -1), ()]:
        with pytest.raises(UsageError, match="name at least one, each once, by its index"):
            detector.decode(detector.queries(), layers=layers)
    last = detector.decode(detector.queries(), layers=LAST)
    assert last.of_layers(LAST) is last and last.of_layers(None) is last
    with pytest.raises(UsageError, match="decode the queries again"):
        last.of_layers((0,))
