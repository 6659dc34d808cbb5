"""Distillation with the Trainer: resume, mixed precision, and the contents of checkpoints."""

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.data import build_detection_test_loader, get_detection_dataset_dicts
from detectron2.data import transforms as T
from engine_toy import write_dataset
from omegaconf import OmegaConf

from kddetr import KDDETR
from kddetr.checkpoint import CheckpointError, load_pretrained
from kddetr.data import DetectionMapper, build_train_loader
from kddetr.engine import (
    CocoEvaluator,
    Trainer,
    parameter_groups,
    step_schedule,
    train_defaults,
)
from kddetr.errors import UsageError
from kddetr.losses import WeightedMeanLoss
from kddetr.points import GeneralSampler, JointSampler, SpecificSampler
from tests.distillation.runs import final_checkpoint, interrupt, trained
from tests.tiny import assert_same_tensors, tiny_batch, tiny_detector

FAMILY = "dab_deformable_detr"


@pytest.fixture
def config(tmp_path):
    """A function that makes the config of a tiny distillation, which writes to the named folder."""
    name = write_dataset(tmp_path / "data", "distillation_tiny")

    def make(folder, *, distil=True, family=FAMILY, width=16, **train):
        checkpoint = tmp_path / f"teacher_{family}.pth"
        detector = {"family": family, "decoder_layers": 3, "embed_dim": width}
        torch.save({"model": tiny_detector(seed=2, **detector).state_dict()}, checkpoint)
        student = L(tiny_detector)(family=family, seed=1, dropout=0.1)
        dataset = L(get_detection_dataset_dicts)(names=name, filter_empty=False)
        cfg = {
            "train": train_defaults()
            | {"output_dir": str(tmp_path / folder), "max_iter": 6, "device": "cpu"}
            | train,
            "model": student,
            "optimizer": L(torch.optim.AdamW)(
                params=L(parameter_groups)(base_lr="${..lr}"), lr=1e-2
            ),
            "lr_multiplier": L(step_schedule)(max_iter="${train.max_iter}"),
            "dataloader": {
                "train": L(build_train_loader)(
                    dataset=dataset,
                    mapper=L(DetectionMapper)(is_train=True, augmentations=[L(T.RandomFlip)()]),
                    total_batch_size=2,
                    seed="${train.seed}",
                ),
                "test": L(build_detection_test_loader)(
                    dataset=dataset,
                    mapper=L(DetectionMapper)(is_train=False, augmentations=[]),
                    num_workers=0,
                ),
                "evaluator": L(CocoEvaluator)(dataset_name=name),
            },
        }
        if distil:
            cfg["model"] = L(KDDETR)(
                student=student,
                teacher=L(load_pretrained)(
                    model=L(tiny_detector)(seed=3, **detector),
                    checkpoint=str(checkpoint),
                ),
                sampler=L(JointSampler)(
                    samplers=[L(GeneralSampler)(count=4), L(SpecificSampler)()]
                ),
                loss=L(WeightedMeanLoss)(),
            )
        return OmegaConf.create(cfg, flags={"allow_objects": True})

    return make


def final_weights(cfg) -> dict:
    return final_checkpoint(cfg)["model"]


@pytest.mark.parametrize("family, width", [(FAMILY, 16), ("dino", 32)])
def test_resumed_is_uninterrupted_and_its_file_loads_into_the_plain_detector(config, family, width):
    """Also with denoising, and with a projection between two widths."""
    pair = {"family": family, "embed_dim": width}
    keep = {"checkpointer": {"period": 1, "max_to_keep": 1}, **pair}
    whole, interrupted = config("whole", **pair), config("interrupted", **keep)
    trained(whole)
    interrupt(interrupted, at=3)
    trained(config("interrupted", **keep), resume=True)
    assert_same_tensors(final_weights(interrupted), final_weights(whole))

    plain = tiny_detector(family, seed=9)
    load_pretrained(plain, f"{whole.train.output_dir}/model_final.pth")
    assert_same_tensors(plain.state_dict(), final_weights(whole))


def test_weight_zero_is_the_plain_run_and_needs_no_teacher(config):
    plain, zero = config("plain", distil=False), config("zero")
    zero.model.weight = 0.0
    zero.model.teacher.checkpoint = "nowhere.pth"
    for cfg in (plain, zero):
        trained(cfg)
    assert_same_tensors(final_weights(zero), final_weights(plain))


@pytest.mark.parametrize("amp", [False, True])
def test_teacher_and_student_are_asked_at_the_same_points(config, amp):
    amp = {"enabled": amp, "dtype": "bfloat16"}
    cfg = config("points", amp=amp, max_iter=2, watch_images=0)  # an evaluation would ask too
    trainer = Trainer(cfg)
    asked = {"student": [], "teacher": []}
    for role, detector in (("student", trainer.model.student), ("teacher", trainer.model.teacher)):

        def decode(memory, queries, role=role, original=detector.decode):
            if queries.groups:
                asked[role].append(queries)
            return original(memory, queries)

        detector.decode = decode
    trainer.train()
    assert len(asked["student"]) == len(asked["teacher"]) == 2
    for mine, theirs in zip(asked["student"], asked["teacher"], strict=True):
        assert mine.groups == theirs.groups
        assert torch.equal(mine.boxes, theirs.boxes)
    first, second = asked["student"]
    general, specific = (
        [queries.boxes.split([4, 6], dim=1)[i] for queries in (first, second)] for i in (0, 1)
    )
    assert not torch.equal(*general) and torch.equal(*specific)


def test_a_teacher_that_does_not_fit_is_refused(config, tmp_path):
    cfg = config("misfit")
    cfg.model.teacher.model.decoder_layers = 2
    with pytest.raises(CheckpointError, match="has decoder_layers=3 and the model 2"):
        Trainer(cfg)
    cfg = config("classes")
    cfg.model.teacher.model.num_classes = 4
    with pytest.raises(CheckpointError, match="num_classes=3 and the model 4"):
        Trainer(cfg)
    torch.save(tiny_detector(FAMILY, num_classes=4).state_dict(), tmp_path / "four.pth")
    cfg.model.teacher.model.decoder_layers = 2
    cfg.model.teacher.checkpoint = str(tmp_path / "four.pth")
    with pytest.raises(UsageError, match="teacher has 4 classes and the student 3"):
        Trainer(cfg)


def test_evaluation_needs_no_teacher(config):
    cfg = config("evaluated")
    cfg.model.teacher.checkpoint = "nowhere.pth"
    detector = Trainer.build_detector(cfg).eval()
    assert "AP" in Trainer.test(cfg, detector)["bbox"]
    assert detector(tiny_batch())[0]["instances"].has("scores")
