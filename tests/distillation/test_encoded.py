"""Losses find the encoded images, their feature maps and their ground truth."""

import pytest
import torch

from kddetr.detectors import detectron2_detector
from kddetr.errors import UsageError
from kddetr.structures import EncodedDetector
from kddetr.teachers import CachedEncoder
from tests.stock_models import tiny_faster_rcnn, tiny_fcos, tiny_retinanet
from tests.tiny import FAMILIES, tiny_batch, tiny_detector, tiny_distiller


class Kept:
    """A loss that keeps what it was called with."""

    def __call__(self, student, teacher, points):
        self.student, self.teacher = student, teacher
        return {"kd/none": student.logits.sum() * 0}


def distiller(family, **options):
    student, teacher = tiny_detector(family, seed=0), tiny_detector(family, seed=1)
    return tiny_distiller(student, teacher, **options)


def no_points(teacher, student):
    """A sampler of zero points."""
    return teacher.queries().first(0).named("none")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_loss_gets_both_encoded_detectors_and_nothing_is_encoded_twice(family):
    loss, batch = Kept(), tiny_batch()
    model = distiller(family, loss=loss)
    encoded = []
    for detector in (model.student, model.teacher):
        detector.encoder.register_forward_hook(lambda *_: encoded.append(1))
    model(batch)
    assert len(encoded) == 2
    assert loss.student.encoded.detector is model.student
    assert loss.teacher.encoded.detector is model.teacher
    assert loss.student.encoded.inputs is loss.teacher.encoded.inputs is batch
    of_student = loss.student.encoded.feature_maps("encoder")
    assert all(m.requires_grad for m in of_student)
    assert not any(m.requires_grad for m in loss.teacher.encoded.feature_maps("neck"))
    parts = loss.student.split({"a": 1, "b": loss.student.logits.shape[2] - 1})
    assert parts["b"].last().detach().encoded is loss.student.encoded
    # Its images are in the old order, so predictions about chosen ones are not bound to it.
    assert loss.student.of_images([1, 0]).encoded is None


@pytest.mark.parametrize("family", FAMILIES)
def test_the_teacher_keeps_no_projections_and_answers_further_queries(family):
    loss = Kept()
    model = distiller(family, loss=loss, sampler=lambda teacher, _: teacher.queries().named("own"))
    model(tiny_batch())
    encoded = loss.teacher.encoded
    assert not encoded.memory._cache
    with torch.no_grad():
        again = encoded.decode(encoded.queries())
    torch.testing.assert_close(again.last().logits, loss.teacher.last().logits)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_maps_of_the_encoder_are_its_tokens_and_those_of_the_neck_enter_it(family):
    detector, batch = tiny_detector(family).eval(), tiny_batch()
    entered = []
    detector.encoder.register_forward_hook(lambda _, given, __: entered.append(given[0].features))
    memory = detector.encode(batch)
    encoded = EncodedDetector(detector, memory)
    maps = encoded.feature_maps("encoder")
    assert [m.shape[-2:] for m in maps] == [torch.Size(s) for s in memory.shapes]
    tokens = torch.cat([m.flatten(2).transpose(1, 2) for m in maps], dim=1)
    assert torch.equal(tokens, memory.tokens)
    for neck, given in zip(encoded.feature_maps("neck"), entered[0], strict=True):
        assert torch.equal(neck, given)
    with pytest.raises(UsageError, match="no feature maps 'head', only 'neck', 'encoder'"):
        encoded.feature_maps("head")


def test_a_cached_encoder_keeps_the_maps_of_the_encoder_only():
    detector, batch = tiny_detector("dab_detr").eval(), tiny_batch(sizes=((32, 48), (32, 48)))
    teacher = CachedEncoder(detector, dtype="float32")
    encoded = EncodedDetector(teacher, teacher.encode(batch))
    plain = EncodedDetector(detector, detector.encode(batch))
    found, expected = (e.feature_maps("encoder") for e in (encoded, plain))
    torch.testing.assert_close(found, expected)
    with pytest.raises(UsageError, match="CachedEncoder gives no feature maps 'neck', only 'enc"):
        encoded.feature_maps("neck")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_sampler_may_give_no_points_so_that_a_loss_compares_features_only(family):
    def features(student, teacher, points):
        pairs = zip(*(p.encoded.feature_maps("encoder") for p in (student, teacher)), strict=True)
        return {"kd_features/mse": sum((a - b).square().mean() for a, b in pairs)}

    model = distiller(family, sampler=no_points, loss=features)
    losses = model(tiny_batch())
    assert losses["kd_features/mse"] > 0
    sum(losses.values()).backward()
    assert any(p.grad.any() for p in model.student.encoder.parameters())


@pytest.mark.parametrize("stock", [tiny_faster_rcnn, tiny_retinanet, tiny_fcos])
def test_the_maps_of_a_model_of_detectron2_are_trained_through(stock):
    detector, batch = detectron2_detector(stock(), input_format="BGR"), tiny_batch()
    encoded = EncodedDetector(detector, detector.encode(batch), batch)
    maps = encoded.feature_maps("neck")
    sides = [m.shape[-1] for m in maps]
    assert sides == sorted(sides, reverse=True)  # fine to coarse
    assert all(m.requires_grad and len(m) == len(batch) for m in maps)
    with pytest.raises(UsageError, match="no feature maps 'encoder', only 'neck'"):
        encoded.feature_maps("encoder")
