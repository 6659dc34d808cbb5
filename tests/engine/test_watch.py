"""Watching a distillation: what is logged, and that training does not notice."""

from types import SimpleNamespace

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.data import build_detection_test_loader, get_detection_dataset_dicts
from detectron2.utils.events import EventStorage, get_event_storage
from omegaconf import OmegaConf

from kddetr import KDDETR
from kddetr.data import DetectionMapper, build_train_loader
from kddetr.detectors import TinyConvNet
from kddetr.engine import (
    CocoEvaluator,
    Trainer,
    parameter_groups,
    step_schedule,
    train_defaults,
)
from kddetr.engine.metrics import read_metrics
from kddetr.engine.watch import WatchHook, gap_on_images, watch_hooks, with_gap
from kddetr.errors import UsageError
from kddetr.losses import WeightedMeanLoss
from kddetr.points import AtAnswers, GeneralSampler, JointSampler, SpecificSampler
from tests.documented_names import undescribed
from tests.tiny import assert_same_tensors, tiny_batch, tiny_detector, tiny_distiller

FIGURES = {name + ending for name in ("agreement", "iou", "kl") for ending in ("", "_fg")}


def logged(model, batch) -> dict[str, float]:
    """What the hook logs of one step."""
    with EventStorage() as storage:
        hook = WatchHook(model, 1, lambda loss: 8 * loss)  # as the scaled loss of float16
        hook.trainer = SimpleNamespace(iter=0, storage=storage)
        hook.before_step()
        losses = model(batch)
        hook.after_step()
    sum(losses.values()).backward()  # the graph is still there
    assert model.observer is None
    return {name: value for name, (value, _) in storage.latest().items()}


def distiller(**options) -> KDDETR:
    """Its points are the teacher's own queries: the same at every call."""
    student, teacher = tiny_detector(seed=0), tiny_detector(seed=1)
    return tiny_distiller(student, teacher, sampler=SpecificSampler(), **options)


def gradient_norm(model, losses) -> float:
    model.zero_grad()
    sum(losses.values()).backward()
    gradients = [p.grad.flatten() for p in model.student.parameters() if p.grad is not None]
    return float(torch.cat(gradients).norm())


def test_the_ratio_is_that_of_the_gradients_of_the_two_parts():
    """Also where a loss of the distillation has the name of no group."""

    def loss(student, teacher, points):
        return {"l1": (student.boxes - teacher.boxes[-1:]).abs().mean()}

    model, batch = distiller(loss=loss, weight=0.5), tiny_batch()
    found = logged(model, batch)
    assert set(found) == {"gradient_ratio"} | {f"gap_specific/{name}" for name in FIGURES}
    losses = model(batch)
    distilled = {"kd/l1": losses.pop("kd/l1")}
    expected = gradient_norm(model, distilled) / gradient_norm(model, model.student(batch))
    assert found["gradient_ratio"] == pytest.approx(expected, rel=1e-4)


def test_the_ratio_grows_with_the_weight_and_the_gap_does_not():
    one, two = (logged(distiller(weight=weight), tiny_batch()) for weight in (1.0, 2.0))
    assert two.pop("gradient_ratio") == pytest.approx(2 * one.pop("gradient_ratio"), rel=1e-4)
    assert two == pytest.approx(one)


def test_without_labels_the_gap_is_logged_and_no_ratio():
    found = logged(distiller(), tiny_batch(boxes=(None, None)))
    assert set(found) == {f"gap_specific/{name}" for name in FIGURES}


def test_a_query_placement_and_a_loss_that_says_its_layers():
    loss = WeightedMeanLoss(student_layers=[0])
    found = logged(distiller(loss=loss, query_placement=AtAnswers()), tiny_batch())
    assert found["gradient_ratio"] > 0 and "gap_specific/iou" in found


class LoggedPoints(JointSampler):
    """General and specific points, and a value in the log that is another one at every call."""

    def __call__(self, teacher, student):
        points = super().__call__(teacher, student)
        get_event_storage().put_scalar("my/x", points.boxes[..., 0].mean())
        return points


@pytest.fixture
def config(toy, dataset, tmp_path):
    """A function that makes the config of a tiny distillation with dropout and BatchNorm."""

    def make(folder, *, weight=1.0, **train):
        backbone = L(TinyConvNet)(
            channels=[4, 6, 8], blocks=[0, 1, 0], out_features=["stage1", "stage2"], norm="BN"
        )
        images = L(get_detection_dataset_dicts)(names=dataset, filter_empty=False)
        test = L(DetectionMapper)(is_train=False, augmentations=[])
        cfg = {
            "train": train_defaults()
            | {"output_dir": str(tmp_path / folder), "max_iter": 3, "log_period": 1}
            | {"device": "cpu", **train},
            "model": L(KDDETR)(
                student=L(tiny_detector)(
                    dropout=0.1, backbone=backbone, checkpoint_activations=True
                ),
                teacher=L(tiny_detector)(seed=1),
                sampler=L(LoggedPoints)(
                    samplers=[L(GeneralSampler)(count=4), L(SpecificSampler)()]
                ),
                loss=L(WeightedMeanLoss)(),
                weight=weight,
            ),
            "optimizer": L(torch.optim.AdamW)(
                params=L(parameter_groups)(base_lr="${..lr}"), lr=1e-2
            ),
            "lr_multiplier": L(step_schedule)(max_iter="${train.max_iter}"),
            "dataloader": {
                "train": L(build_train_loader)(
                    dataset=images,
                    mapper=L(DetectionMapper)(is_train=True, augmentations=[]),
                    total_batch_size=2,
                    seed="${train.seed}",
                ),
                "test": L(build_detection_test_loader)(dataset=images, mapper=test, num_workers=0),
                "evaluator": L(CocoEvaluator)(dataset_name=dataset),
            },
        }
        return OmegaConf.create(cfg, flags={"allow_objects": True})

    return make


def trained(cfg) -> Trainer:
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()
    return trainer


@pytest.mark.parametrize("amp", [False, True])
def test_training_is_the_same_watched_or_not(config, amp):
    """Weights, statistics, gradients and what is logged of the training, bit for bit."""
    common = {"amp": {"enabled": amp, "dtype": "bfloat16"}}
    watch = trained(config("watched", watch_period=2, watch_images=3, eval_period=2, **common))
    plain = trained(config("plain", watch_period=0, watch_images=0, eval_period=2, **common))
    assert_same_tensors(watch.model.state_dict(), plain.model.state_dict())
    gradients = [
        {n: p.grad for n, p in run.model.named_parameters() if p.grad is not None}
        for run in (watch, plain)
    ]
    assert_same_tensors(*gradients)
    ours, theirs = (
        {line["iteration"]: line for line in read_metrics(run.cfg.train.output_dir)}
        for run in (watch, plain)
    )
    groups = ("general", "specific")
    of_step = {f"gap_{group}/{name}" for group in groups for name in FIGURES} | {"gradient_ratio"}
    of_images = {f"gap/{group}/{name}" for group in groups for name in FIGURES}
    new = [ours[i].keys() - theirs[i].keys() for i in theirs]
    assert new[:2] == [set(), of_step | of_images] and set().union(*new[2:]) == of_images
    assert undescribed(name for line in ours.values() for name in line) == ["my/x"]
    for i, line in theirs.items():
        same = {k: v for k, v in line.items() if "loss" in k or "AP" in k or k == "my/x"}
        assert same.items() <= ours[i].items()
    assert all("my/x" in theirs[i] for i in range(3))


def test_the_gap_of_the_test_images_is_the_same_at_every_evaluation(config):
    """Also outside of a training, where there is no log."""
    trainer = Trainer(config("again"))
    first, second = (with_gap(trainer, {})["gap"] for _ in range(2))
    assert first == second and set(first) >= {"general/kl", "specific/iou_fg"}


def test_an_evaluation_goes_on_where_the_teacher_cannot_be_asked(caplog):
    class Teacher(torch.nn.Module):
        def encode(self, inputs):
            raise UsageError("It does not know these images.")

    model = distiller()
    object.__setattr__(model, "teacher", Teacher())
    assert gap_on_images(model, [tiny_batch()], 2, seed=0) == {}
    assert "not computed on the test images: It does not know these images." in caplog.text


def test_weight_zero_is_not_watched(config):
    trainer = Trainer(config("zero", weight=0.0))
    assert watch_hooks(trainer) == [] and with_gap(trainer, {}) == {}
