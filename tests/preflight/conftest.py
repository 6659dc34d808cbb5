"""Configs of a tiny distillation on the toy images."""

import engine_toy
import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.data import get_detection_dataset_dicts
from omegaconf import OmegaConf

from kddetr import KDDETR
from kddetr.data import DetectionMapper, build_test_loader, build_train_loader
from kddetr.engine import CocoEvaluator, parameter_groups, step_schedule, train_defaults
from kddetr.losses import WeightedMeanLoss
from kddetr.points import GeneralSampler, JointSampler, SpecificSampler
from tests.preflight.seeing import SeeingTeacher
from tests.tiny import tiny_detector


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return engine_toy.write_dataset(tmp_path_factory.mktemp("data"), "preflight_toy", images=8)


@pytest.fixture
def config(dataset, tmp_path):
    """A function that makes a config, by default with a teacher that sees all quarters."""

    def make(teacher=None, *, weight=1.0, folder="run", **train):
        images = L(get_detection_dataset_dicts)(names=dataset, filter_empty=False)
        cfg = {
            "train": train_defaults()
            | {"output_dir": str(tmp_path / folder), "max_iter": 3, "log_period": 1}
            | {"device": "cpu", "eval_period": 0, "watch_images": 0, **train},
            "model": L(KDDETR)(
                student=L(tiny_detector)(dropout=0.1),
                teacher=L(SeeingTeacher)() if teacher is None else teacher,
                sampler=L(JointSampler)(
                    samplers=[L(GeneralSampler)(count=4), L(SpecificSampler)()]
                ),
                loss=L(WeightedMeanLoss)(),
                weight=weight,
            ),
            "optimizer": L(torch.optim.AdamW)(
                params=L(parameter_groups)(base_lr="${..lr}"), lr=1e-3
            ),
            "lr_multiplier": L(step_schedule)(max_iter="${train.max_iter}"),
            "dataloader": {
                "train": L(build_train_loader)(
                    dataset=images,
                    mapper=L(DetectionMapper)(is_train=True, augmentations=[]),
                    total_batch_size=2,
                    seed="${train.seed}",
                ),
                "test": L(build_test_loader)(
                    dataset=images,
                    mapper=L(DetectionMapper)(is_train=False, augmentations=[]),
                    batch_size=4,
                ),
                "evaluator": L(CocoEvaluator)(dataset_name=dataset),
            },
        }
        return OmegaConf.create(cfg, flags={"allow_objects": True})

    return make
