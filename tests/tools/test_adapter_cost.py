"""The program adapter_cost.py: what it measures and prints, whatever the measured times are."""

import re
import subprocess
import sys

import pytest
import torch
from detectron2.layers import FrozenBatchNorm2d
from torch import nn

from adapter_cost import FixedAnswers, asking, batch_statistics, built, measure
from kddetr import KDDETR
from kddetr.engine import Trainer, load_config
from kddetr.errors import UserError
from kddetr.structures import QueryableDetector
from step_memory import random_batch
from tests.tiny import FAMILIES, tiny_detector

SMALL = "configs/quickstart/faster_rcnn_alone.py"
NUMBER = r"\s+([\d.]+)"


def small_student() -> nn.Module:
    torch.manual_seed(0)
    return Trainer.build_detector(load_config(SMALL)).train()


def batch_of(student: nn.Module, images: int = 2) -> list[dict]:
    torch.manual_seed(0)
    return random_batch(images, (64, 96), 3, student.num_classes)


@pytest.mark.slow
def test_the_program_reports():
    command = [sys.executable, "tools/adapter_cost.py", "--config", SMALL, "--device", "cpu"]
    command += ["--height", "64", "--width", "96", "--images", "2", "--points", "12"]
    command += ["--repeats", "2", "--teacher", "configs/quickstart/teacher.py"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = {}
    for name in ("plain step", "with the points", "ratio of the medians", "backbone runs an image"):
        found[name] = float(re.search(name + NUMBER, done.stdout)[1])
    assert found["backbone runs an image"] == 1
    ratio = found["with the points"] / found["plain step"]
    assert found["ratio of the medians"] == pytest.approx(ratio, rel=0.1)  # of rounded seconds
    assert "target: at most 1.25" in done.stdout and "2 x 64 x 96" in done.stdout
    assert "12 points" in done.stdout and "2 pairs" in done.stdout
    assert re.search("teacher encodes" + NUMBER, done.stdout)
    assert re.search("teacher decodes" + NUMBER, done.stdout)


def test_steps_without_and_with_points_alternate():
    student = small_student()
    batch, order = batch_of(student), []
    distiller = asking(student, batch, 8, at_answers=False).train()
    student.register_forward_hook(lambda *_: order.append("plain"))
    distiller.register_forward_hook(lambda *_: order.append("asked"))
    cost = measure(distiller, batch, repeats=2, warmup=1, amp=None)
    assert order == ["plain", "asked"] * 3
    assert len(cost.plain) == len(cost.asked) == 2 and cost.backbone == 1


def test_second_run_of_the_backbone_is_counted():
    class Wasteful(KDDETR):
        def ask_teacher(self, inputs, memory):
            self.student.encode(inputs)
            return super().ask_teacher(inputs, memory)

    student = small_student()
    batch = batch_of(student)
    honest = asking(student, batch, 8, at_answers=False)
    parts = {"teacher": honest.teacher, "sampler": honest.sampler, "loss": honest.loss}
    distiller = Wasteful(student=student, **parts).train()
    assert measure(distiller, batch, repeats=1, warmup=0, amp=None).backbone == 2


@pytest.mark.parametrize("at_answers", [False, True])
@pytest.mark.parametrize("points", [1, 7])
def test_teacher_and_student_are_asked_at_all_points(points, at_answers):
    student = small_student()
    batch = batch_of(student)
    distiller = asking(student, batch, points, at_answers=at_answers).train()
    seen = []
    decode = student.decode
    student.decode = lambda memory, queries: seen.append(queries) or decode(memory, queries)
    memory = student.encode(batch)
    asked, wanted = distiller.ask_teacher(batch, memory)
    assert wanted.logits.shape == (1, 2, points, student.num_classes)
    assert sum(asked.groups.values()) == points
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(student, "losses", lambda memory, inputs: {})
        sum(distiller(batch).values()).backward()
    assert seen[0].boxes.shape == (2, points, 4)
    assert any(p.grad is not None and p.grad.any() for p in student.parameters())


# The queries of a one-stage Deformable DETR are not boxes: none can be made at general points.
BOX_FAMILIES = [f for f in FAMILIES if f not in ("deformable_detr_plain", "deformable_detr")]


@pytest.mark.parametrize("family", BOX_FAMILIES)
def test_a_transformer_can_be_measured_too(family):
    student = tiny_detector(family).train()
    batch = batch_of(student)
    distiller = asking(student, batch, 6, at_answers=False).train()
    assert measure(distiller, batch, repeats=1, warmup=0, amp=None).backbone == 1


def test_fixed_answers_are_a_queryable_detector_with_boxes_around_the_objects():
    boxes = torch.tensor([[[0.2, 0.3, 0.1, 0.1], [0.7, 0.6, 0.2, 0.3]]])
    teacher = FixedAnswers(boxes, 9, 5)
    assert isinstance(teacher, QueryableDetector)
    near = boxes[:, torch.arange(9) % 2]
    distance = (teacher.found[..., :2] - near[..., :2]).abs()
    assert (distance <= 0.2 * near[..., 2:] + 1e-6).all()
    assert torch.equal(teacher.decode(None, teacher.queries(None)).boxes[0], teacher.found)


def test_statistics_of_frozen_norms_are_those_of_the_batch_inside_the_context_only():
    norm = FrozenBatchNorm2d(3)
    given = 5 + 7 * torch.randn(2, 3, 8, 8)
    with batch_statistics(nn.Sequential(norm)):
        found = norm(given)
    assert found.mean((0, 2, 3)).abs().max() < 1e-4
    assert (found.var((0, 2, 3)) - 1).abs().max() < 1e-3
    assert norm(2 * given).mean() > 0.1


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("configs/quickstart/distilled.py", "builds a KDDETR, which cannot be asked"),
        ("configs/common/sgd.py", "The config has no model"),
    ],
)
def test_a_config_of_no_teacher_is_refused(config, message):
    with pytest.raises(UserError, match=message):
        built(config)
