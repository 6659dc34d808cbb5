"""A teacher whose large weights are kept in half precision."""

import copy

import pytest
import torch

from kddetr.errors import UsageError
from kddetr.predictions import LAST
from kddetr.structures import EncodedDetector, QueryableDetector
from kddetr.teachers import CachedEncoder, HalfPrecision, RecordedTeacher
from tests.records import image_files, random_record
from tests.tiny import FAMILIES, tiny_batch, tiny_detector, tiny_distiller


def answers(detector, batch):
    memory = detector.encode(batch)
    return detector.decode(memory, detector.queries(memory))


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_are_those_of_the_same_detector_under_autocast(family):
    detector = tiny_detector(family).eval()
    half = HalfPrecision(copy.deepcopy(detector)).eval()
    assert isinstance(half, QueryableDetector)
    with torch.no_grad():
        found = answers(half, tiny_batch())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            expected = answers(detector, tiny_batch())
    assert found.logits.dtype is found.boxes.dtype is torch.float32
    torch.testing.assert_close(found.logits, expected.logits, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.boxes, expected.boxes, atol=1e-5, rtol=1e-5)


def test_large_weights_are_halved_and_the_names_stay():
    detector = tiny_detector("dino")
    names, before = list(detector.state_dict()), sum(p.nbytes for p in detector.parameters())
    half = HalfPrecision(detector)
    assert list(half.detector.state_dict()) == names
    assert sum(p.nbytes for p in half.parameters()) < 0.6 * before
    cast = {name for name, p in half.detector.named_parameters() if p.dtype is torch.bfloat16}
    assert not any(
        "norm" in name or "query_source" in name
        for name in cast - {name for name in cast if ".proposals." in name}
    )


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_it_teaches_a_student_in_float32(dtype):
    teacher = CachedEncoder(HalfPrecision(tiny_detector(seed=1), dtype=dtype))
    distiller = tiny_distiller(tiny_detector(), teacher)
    losses = distiller(tiny_batch(((40, 56), (40, 56))))
    sum(losses.values()).backward()
    assert all(loss.dtype is torch.float32 and loss.isfinite() for loss in losses.values())
    assert all(p.dtype is torch.float32 for p in distiller.parameters())


def test_what_is_refused():
    with pytest.raises(ValueError, match="dtype must be one of 'bfloat16', 'float16'"):
        HalfPrecision(tiny_detector(), dtype="float8")
    with pytest.raises(UsageError, match="HalfPrecision is around"):
        HalfPrecision(torch.nn.Linear(2, 2))


def test_only_the_wanted_layers_are_computed():
    detector, ran = tiny_detector("deformable_detr").eval(), []
    for i, head in enumerate(detector.decoder.class_heads):
        head.register_forward_hook(lambda *_, i=i: ran.append(i))
    teacher = HalfPrecision(detector)
    with torch.no_grad():
        memory = teacher.encode(tiny_batch())
        EncodedDetector(teacher, memory).decode(teacher.queries(memory), layers=LAST)
    assert ran == [len(detector.decoder.layers) - 1]


def test_a_teacher_without_weights_is_refused(tmp_path):
    images = image_files(tmp_path / "images")
    teacher = RecordedTeacher(path=random_record(tmp_path / "record", images, (1, 0, 2)))
    with pytest.raises(UsageError, match="with weights, and a RecordedTeacher has none"):
        HalfPrecision(teacher)
