"""Real-time detectors of the transformers package teach all others, and learn from them."""

import copy
import functools

import pytest
import torch
from detectron2.utils.events import EventStorage
from torch import nn

from kddetr.detectors import detectron2_detector
from kddetr.points import (
    GeneralSampler,
    JointSampler,
    NearbySampler,
    SpecificSampler,
    StudentSampler,
)
from tests import stock_models
from tests.tiny import assert_same_tensors, tiny_batch, tiny_detector, tiny_distiller
from tests.tiny_huggingface import MEMBERS, REASON, tiny_huggingface

pytest.importorskip("transformers", reason=REASON)

TRANSFORMERS = ("dab_detr", "deformable_detr_two_stage", "dab_deformable_detr", "dino")
STOCK = ("faster_rcnn", "cascade_rcnn", "retinanet", "fcos")
EMBEDDINGS = ("deformable_detr", "deformable_detr_plain")  # one-stage: queries without boxes
PAIRS = [
    *((member, other) for member in MEMBERS for other in (*TRANSFORMERS, *STOCK)),
    *((other, member) for member in MEMBERS for other in (*TRANSFORMERS, *STOCK)),
    *((teacher, student) for teacher in MEMBERS for student in MEMBERS),
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


@pytest.mark.parametrize(("teacher", "student"), PAIRS)
def test_any_teacher_with_any_student(teacher, student):
    """At points of all kinds, of which one image has no labels."""
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
