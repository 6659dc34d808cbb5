"""Real-time detectors of the transformers package teach all others, and learn from them."""

import copy
import functools

import pytest
import torch
from detectron2.utils.events import EventStorage
from torch import nn

from kddetr.detectors import detectron2_detector
from kddetr.errors import UsageError
from kddetr.points import (
    AtAnswers,
    GeneralSampler,
    JointSampler,
    NearbySampler,
    SpecificSampler,
    StudentSampler,
)
from tests import stock_models
from tests.distillation.test_host_waits import is_the_matcher, waits_of_a_step
from tests.tiny import assert_same_tensors, tiny_batch, tiny_detector, tiny_distiller
from tests.tiny_huggingface import MEMBERS, REASON, tiny_huggingface

pytest.importorskip("transformers", reason=REASON)
pytestmark = pytest.mark.filterwarnings("ignore:User provided device_type of 'cuda'")

TRANSFORMERS = ("dab_detr", "deformable_detr_two_stage", "dab_deformable_detr", "dino")
STOCK = ("faster_rcnn", "cascade_rcnn", "retinanet", "fcos")
EMBEDDINGS = ("deformable_detr", "deformable_detr_plain")  # one-stage: queries without boxes
PAIRS = [
    *((member, other) for member in MEMBERS for other in (*TRANSFORMERS, *STOCK)),
    *((other, member) for member in MEMBERS for other in (*TRANSFORMERS, *STOCK)),
    *((teacher, student) for teacher in MEMBERS for student in MEMBERS),
]


# `make test` has each member once with every kind of other; tests/live has all pairs.
FEW = [
    *(("rt_detr", "dino"), ("rt_detr_v2", "dab_detr"), ("d_fine", "faster_rcnn")),
    *(("deimv2", "retinanet"), ("dino", "rt_detr_v2"), ("faster_rcnn", "rt_detr")),
    *(("fcos", "d_fine"), ("deformable_detr_two_stage", "deimv2"), ("d_fine", "rt_detr_v2")),
]


@functools.cache
def built(name: str, seed: int) -> nn.Module:
    if name in MEMBERS:
        return tiny_huggingface(name, seed=seed)
    if name in STOCK:
        stock = getattr(stock_models, f"tiny_{name}")(seed=seed)
        return detectron2_detector(stock, num_queries=6, input_format="BGR")
    return tiny_detector(name, seed=seed)


def detector(name: str, seed: int = 0) -> nn.Module:
    return copy.deepcopy(built(name, seed))


def step(model: nn.Module, batch: list[dict]) -> dict:
    with EventStorage():
        return model(batch)


@pytest.mark.parametrize(("teacher", "student"), FEW)
def test_a_teacher_with_a_student(teacher, student):
    check_pair(teacher, student)


def check_pair(teacher: str, student: str) -> None:
    """A training step at points of all kinds, with an image without labels."""
    samplers = [GeneralSampler(count=4), SpecificSampler(), StudentSampler(count=5)]
    model = tiny_distiller(
        detector(student, 1),
        detector(teacher, 2),
        sampler=JointSampler([*samplers, NearbySampler()]),
    )
    before = copy.deepcopy(model.teacher.state_dict())
    losses = step(model, tiny_batch(((64, 80), (56, 72)), boxes=(3, None)))
    groups = {name.split("/")[0] for name in losses if name.startswith("kd_")}
    assert groups == {"kd_general", "kd_specific", "kd_student", "kd_nearby"}
    assert all(torch.isfinite(value) for value in losses.values())
    assert model.projection is None
    sum(value for name, value in losses.items() if name.startswith("kd_")).backward()
    trained = [n for n, p in model.student.named_parameters() if p.grad is not None]
    assert any("backbone" in n or "conv_encoder" in n or "bottom_up" in n for n in trained)
    assert all(p.grad is None for p in model.teacher.parameters())
    assert_same_tensors(model.teacher.state_dict(), before)


def test_learned_embeddings_are_no_boxes():
    """A one-stage Deformable DETR teaches by its answers alone, and cannot be taught."""
    for name in EMBEDDINGS:
        with pytest.raises(UsageError, match="of the same kind"):
            tiny_distiller(detector(name), detector("rt_detr_v2"))
        with pytest.raises(UsageError, match="of the same kind"):
            tiny_distiller(detector("rt_detr_v2"), detector(name))
    sampler = JointSampler([GeneralSampler(count=4), SpecificSampler()])
    model = tiny_distiller(
        detector("d_fine"),
        detector("deformable_detr"),
        sampler=sampler,
        query_placement=AtAnswers(),
    )
    assert "kd_specific/class" in step(model, tiny_batch())


def test_points_change_none_of_the_students_own_losses():
    batch = tiny_batch()
    found = []
    for weight in (1.0, 0.0):
        model = tiny_distiller(detector("d_fine", 1), detector("rt_detr_v2", 2), weight=weight)
        torch.manual_seed(0)
        found.append(step(model, batch))
    for name, value in found[1].items():
        assert torch.equal(value, found[0][name]), name


@pytest.mark.parametrize("member", MEMBERS)
def test_a_teacher_makes_nobody_wait_for_the_device(member):
    """Its points, and what it predicts there, are queued; the student's matcher waits as always."""
    model = tiny_distiller(tiny_detector("dab_detr"), detector(member))
    waits = waits_of_a_step(model, tiny_batch())
    assert is_the_matcher(waits), waits
