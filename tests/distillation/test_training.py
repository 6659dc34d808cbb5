"""Distillation through the Trainer, from files: resume, precision, what the checkpoint holds."""

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.data import build_detection_test_loader, get_detection_dataset_dicts
from detectron2.data import transforms as T
from engine_toy import write_dataset
from omegaconf import OmegaConf

from kddetr import KDDETR
from kddetr.checkpoint import CheckpointError, load_pretrained, read_checkpoint
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
from tests.tiny import tiny_batch, tiny_detector

FAMILY = "dab_deformable_detr"


@pytest.fixture
def config(tmp_path):
    """A function that gives the config of a tiny distillation into a folder of that name."""
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


def trained(cfg, *, until=None, resume=False) -> Trainer:
    """Train; ``until`` stops as a kill would, with a checkpoint at every iteration."""
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=resume)
    if until is not None:
        trainer.max_iter = until
    trainer.train()
    return trainer


def final(cfg) -> dict:
    return read_checkpoint(f"{cfg.train.output_dir}/model_final.pth")["model"]


def assert_equal(a, b):
    assert a.keys() == b.keys()
    assert [n for n in a if not torch.equal(a[n], b[n])] == []


@pytest.mark.parametrize("family, width", [(FAMILY, 16), ("dino", 32)])
def test_resumed_is_uninterrupted_and_the_file_is_a_plain_detectors(config, family, width):
    """Also with denoising, and with a projection between two widths."""
    pair = {"family": family, "embed_dim": width}
    whole = config("whole", **pair)
    trained(whole)
    keep = {"checkpointer": {"period": 1, "max_to_keep": 1}, **pair}
    killed = config("killed", **keep)
    trainer = Trainer(killed)
    trainer.resume_or_load(resume=False)
    step = trainer.run_step

    def dies():
        if trainer.iter == 3:
            raise KeyboardInterrupt
        step()

    trainer.run_step = dies
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    trained(config("killed", **keep), resume=True)
    assert_equal(final(killed), final(whole))

    plain = tiny_detector(family, seed=9)
    load_pretrained(plain, f"{whole.train.output_dir}/model_final.pth")
    assert_equal(plain.state_dict(), final(whole))


def test_weight_zero_is_the_plain_run(config):
    plain, zero = config("plain", distil=False), config("zero")
    zero.model.weight = 0.0
    for cfg in (plain, zero):
        trained(cfg)
    assert_equal(final(plain), final(zero))


@pytest.mark.parametrize("amp", [False, True])
def test_both_are_asked_at_the_same_points(config, amp):
    cfg = config("points", amp={"enabled": amp, "dtype": "bfloat16"}, max_iter=2)
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
    assert not torch.equal(first.boxes[:, :4], second.boxes[:, :4])  # general: new each step
    assert torch.equal(first.boxes[:, 4:], second.boxes[:, 4:])  # specific: the same each step


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
