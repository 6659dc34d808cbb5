"""Training with a recorded teacher: resume, weight 0, mixed precision, classes."""

from pathlib import Path

import pytest
from detectron2.config import LazyCall as L
from detectron2.data import transforms as T
from engine_toy import write_dataset

from kddetr.engine import ConfigError, check_model, load_config
from kddetr.engine.trainer import Trainer
from tests.distillation.runs import final_checkpoint, interrupt, trained
from tests.tiny import assert_same_tensors
from tests.tiny_config import tiny_config

CONFIG = Path(__file__).parents[2] / "configs/quickstart/distilled_recorded.py"


@pytest.fixture
def config(tmp_path):
    """A function that makes the config of a tiny run with a record, flips and crops."""
    name = write_dataset(tmp_path / "data", "recorded_tiny")

    def make(folder: str, *overrides: str, **train):
        cfg = load_config(str(CONFIG), [*overrides, "train.clip_grad.max_norm=0.1"])
        cfg = tiny_config(cfg, tmp_path / folder, name, max_iter=4, **train)
        crop = L(T.RandomCrop)(crop_type="relative_range", crop_size=(0.5, 0.5))
        for part in ("mapper", "unlabeled_mapper"):
            cfg.dataloader.train[part].augmentations = [L(T.RandomFlip)(), crop]
        return cfg

    return make


def test_resumed_is_uninterrupted(config):
    keep = {"checkpointer": {"period": 1, "max_to_keep": 1}}
    whole, interrupted = config("whole", **keep), config("interrupted", **keep)
    trained(whole)
    interrupt(interrupted, at=2)
    trained(interrupted, resume=True)
    found, expected = (final_checkpoint(cfg)["model"] for cfg in (interrupted, whole))
    assert_same_tensors(found, expected)
    assert not any("content" in name or "record" in name for name in expected)


def test_weight_zero_is_the_plain_run_and_needs_no_record(config):
    zero, plain = config("zero", "model.weight=0"), config("plain")
    zero.model.teacher.path = "nowhere"
    plain.model = plain.model.student
    for cfg in (zero, plain):
        trained(cfg)
    assert_same_tensors(*(final_checkpoint(cfg)["model"] for cfg in (zero, plain)))


def test_mixed_precision(config):
    trainer = trained(config("amp", amp={"enabled": True, "dtype": "bfloat16"}))
    assert all(p.isfinite().all() for p in trainer.model.parameters())


def test_classes_of_another_order_are_refused_before_training(config):
    cfg = config("order")
    card = Path(cfg.model.teacher.path, "card.json")
    text = (
        card.read_text().replace("class1", "x").replace("class9", "class1").replace("x", "class9")
    )
    card.write_text(text)
    with pytest.raises(ConfigError, match="the same 3 classes in another order"):
        check_model(cfg, Trainer.build_model(cfg))
