"""Real-time detectors of the transformers package teach all others, and learn from them."""

import copy
import functools
from pathlib import Path

import pytest
import torch
from detectron2.utils.events import EventStorage
from engine_toy import write_dataset
from torch import nn

from kddetr.checkpoint import load_pretrained
from kddetr.detectors import detectron2_detector
from kddetr.engine import build, load_config
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
from tests.distillation.runs import final_checkpoint, interrupt, trained
from tests.distillation.test_host_waits import is_the_matcher, waits_of_a_step
from tests.tiny import assert_same_tensors, tiny_batch, tiny_detector, tiny_distiller
from tests.tiny_config import tiny_config
from tests.tiny_huggingface import MEMBERS, REASON, tiny_huggingface

pytest.importorskip("transformers", reason=REASON)
pytestmark = pytest.mark.filterwarnings("ignore:User provided device_type of 'cuda'")

ROOT = Path(__file__).parents[2]
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
    *(("rt_detr", "dino"), ("d_fine", "faster_rcnn"), ("dino", "rt_detr_v2")),
    *(("fcos", "d_fine"), ("deformable_detr_two_stage", "deimv2"), ("deimv2", "rt_detr_v2")),
]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> str:
    return write_dataset(tmp_path_factory.mktemp("data"), "huggingface_tiny")


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


@pytest.mark.parametrize("member", ["rt_detr_v2", "d_fine"])
def test_a_teacher_makes_nobody_wait_for_the_device(member):
    """Its points, and what it predicts there, are queued; the student's matcher waits as always."""
    model = tiny_distiller(tiny_detector("dab_detr"), detector(member))
    waits = waits_of_a_step(model, tiny_batch())
    assert is_the_matcher(waits), waits


def test_resumed_is_uninterrupted(dataset, tmp_path):
    """With batch norms, sizes and denoising queries that are drawn, and a moving average, which is
    what the plain folder holds.
    """

    def configured(folder: str):
        cfg = load_config(str(ROOT / "configs/quickstart/rtdetr_distilled.py"))
        (tmp_path / folder).mkdir(exist_ok=True)
        tiny = tiny_config(cfg, tmp_path / folder, dataset, max_iter=3, checkpointer={"period": 1})
        tiny.model.student.train_sizes = [32, 64]
        tiny.train.ema.decay = 0.5
        return tiny

    trained(configured("whole"))
    interrupt(configured("interrupted"), at=2)
    trained(configured("interrupted"), resume=True)
    whole, resumed = (final_checkpoint(configured(name)) for name in ("whole", "interrupted"))
    assert_same_tensors(resumed["model"], whole["model"])
    folder = tmp_path / "whole/run/transformers"
    shipped = detector_of(configured("whole"), str(folder))
    average = detector_of(configured("whole"), str(tmp_path / "whole/run/model_ema.pth"))
    assert_same_tensors(shipped.state_dict(), average.state_dict())
    assert not torch.equal(
        shipped.stock.model.enc_score_head.weight, whole["model"]["model.enc_score_head.weight"]
    )


def detector_of(cfg, file: str) -> nn.Module:
    return load_pretrained(build(cfg.model.student), file)
