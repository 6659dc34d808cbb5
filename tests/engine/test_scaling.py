"""Scaling a config to another batch: once, except for what is overridden, with a log line."""

import logging
from pathlib import Path

import pytest
from detectron2.config import LazyConfig
from omegaconf import OmegaConf

from kddetr.engine import ConfigError, Trainer, build, load_config
from kddetr.engine.config.scaling import scale_to_batch

BATCH = "dataloader.train.total_batch_size"
RECIPE = """
train.max_iter, train.eval_period, train.checkpointer.period = 120, 12, 6
train.batch_scaling = dict(reference=4)
lr_multiplier.warmup_iters = 8
"""


@pytest.fixture
def config(toy, tmp_path) -> str:
    """The toy: batch 4, rate 0.02."""
    path = Path(toy.write_config(tmp_path))
    path.write_text(path.read_text() + RECIPE)
    return str(path)


def numbers(cfg) -> tuple:
    train = cfg.train
    periods = (train.eval_period, train.checkpointer.period, cfg.lr_multiplier.warmup_iters)
    return train.max_iter, *periods, cfg.optimizer.lr


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], (120, 12, 6, 8, 0.02)),
        ([f"{BATCH}=16"], (30, 3, 2, 2, 0.04)),
        ([f"{BATCH}=16", "train.batch_scaling.learning_rate=linear"], (30, 3, 2, 2, 0.08)),
        ([f"{BATCH}=16", "train.batch_scaling.learning_rate=none"], (30, 3, 2, 2, 0.02)),
        ([f"{BATCH}=1"], (480, 48, 24, 32, 0.01)),
        ([f"{BATCH}=16", "train.batch_scaling.reference=0"], (120, 12, 6, 8, 0.02)),
        ([f"{BATCH}=16", "train.batch_scaling.reference=8"], (60, 6, 3, 4, 0.0282843)),
        # ten periods of 12 are ten of 10 (9.6), not 96 iterations with an eleventh evaluation
        ([f"{BATCH}=5"], (100, 10, 5, 6, 0.0223607)),
        # overridden values stay, in each form of an override
        ([f"{BATCH}=16", "optimizer.lr=0.5", "train={max_iter: 70}"], (70, 3, 2, 2, 0.5)),
        ([f"{BATCH}=16", "train.eval_period=7"], (30, 7, 2, 2, 0.04)),
        # at a very large batch, at least one iteration is left
        ([f"{BATCH}=4000", "lr_multiplier.warmup_iters=0"], (10, 1, 1, 0, 0.632456)),
    ],
)
def test_numbers_follow_the_batch(config, overrides, expected):
    assert numbers(load_config(config, overrides)) == expected


def test_scaled_once(config, tmp_path):
    """A second call changes nothing, nor does loading the config that a run has saved."""
    cfg = load_config(config, [f"{BATCH}=16"])
    before = OmegaConf.to_container(cfg.train)
    scale_to_batch(cfg)
    assert OmegaConf.to_container(cfg.train) == before
    LazyConfig.save(cfg, str(tmp_path / "config.yaml"))
    again = load_config(str(tmp_path / "config.yaml"))
    assert OmegaConf.to_container(again.train) == before and again.optimizer.lr == 0.04
    back = load_config(str(tmp_path / "config.yaml"), [f"{BATCH}=4"])
    assert numbers(back) == (120, 12, 8, 8, 0.02)


def test_rates_and_schedule_are_built_from_the_scaled_numbers(config):
    cfg = load_config(config, [f"{BATCH}=16", "lr_multiplier.warmup_iters=0"])
    assert {g["lr"] for g in build(cfg.optimizer.params, model=build(cfg.model))} == {0.04, 0.02}
    schedule = build(cfg.lr_multiplier)
    assert [schedule(i / cfg.train.max_iter) for i in (14, 15)] == pytest.approx([1, 0.1])


def test_a_run_logs_what_was_scaled(config, caplog):
    args = [f"{BATCH}=8", "train.max_iter=2", "lr_multiplier.warmup_iters=0"]
    with caplog.at_level(logging.INFO):
        Trainer(load_config(config, args))
    logged = [r.getMessage() for r in caplog.records if r.getMessage().startswith("scaled")]
    assert logged == [
        "scaled from batch 4 to 8: train.max_iter stays 2, train.eval_period 12 -> 6,"
        " train.checkpointer.period 6 -> 3, optimizer.lr 0.02 -> 0.0282843; to a run of 2"
        " iterations: train.checkpointer.period 3 -> 1"
    ]
    caplog.clear()
    with caplog.at_level(logging.INFO):
        Trainer(load_config(config, ["lr_multiplier.warmup_iters=0"]))
    assert not [r for r in caplog.records if r.getMessage().startswith("scaled")]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.batch_scaling.reference=-1", "reference must be at least 0"),
        ("train.batch_scaling.learning_rate=square", "must be sqrt or linear or none"),
        ("train.batch_scaling.rule=sqrt", "has no 'rule'"),
    ],
)
def test_mistakes(config, override, words):
    with pytest.raises(ConfigError, match=words):
        load_config(config, [override])


OWN = """
from .toy_config import dataloader, lr_multiplier, model, optimizer, train
dataloader.train.total_batch_size = 16
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", (30, 3, 2, 2, 0.04)),
        ("train.max_iter = 70\noptimizer.lr = 0.5", (70, 3, 2, 2, 0.5)),
        # also where it is the number that would be inherited
        ("train.max_iter = 120\noptimizer.lr = 0.02", (120, 3, 2, 2, 0.02)),
        ("train.max_iter, train.eval_period = 70, 7", (70, 7, 2, 2, 0.04)),
        ("train.checkpointer.update(period=5)", (30, 3, 5, 2, 0.04)),
        ("train = OmegaConf.merge(train, {'max_iter': 70})", (70, 3, 2, 2, 0.04)),
        ("OmegaConf.update(train, 'max_iter', 70)", (70, 3, 2, 2, 0.04)),
        ("train = deepcopy(train)\ntrain['max_iter'] = 70", (70, 3, 2, 2, 0.04)),
        # a file that says for which batch its numbers are
        ("train.max_iter = 70\ntrain.batch_scaling.reference = 4", (18, 3, 2, 2, 0.04)),
        ("train.max_iter = 70\ntrain.batch_scaling.reference = 16", (70, 3, 2, 2, 0.04)),
        ("train.max_iter = 70\ntrain.batch_scaling.reference = 8", (35, 3, 2, 2, 0.04)),
        ("train.batch_scaling.reference = 0", (120, 12, 6, 8, 0.02)),
    ],
)
@pytest.mark.parametrize("chained", [False, True])
def test_what_a_users_file_says_stays(config, text, expected, chained):
    """Only what it inherits is scaled, also in a file that imports the user's."""
    head = "from copy import deepcopy\nfrom omegaconf import OmegaConf\n"
    mine = Path(config).with_name("mine.py")
    mine.write_text(head + OWN + text)
    if chained:
        mine = mine.with_name("another.py")
        names = "dataloader, lr_multiplier, model, optimizer, train"
        mine.write_text(f"from .mine import {names}\ntrain.log_period = 3")
    assert numbers(load_config(str(mine))) == expected


def test_a_users_file_that_loads_the_recipe(config):
    text = f"""
from detectron2.config import LazyConfig
_c = LazyConfig.load({config!r})
dataloader, lr_multiplier, model = _c.dataloader, _c.lr_multiplier, _c.model
optimizer, train = _c.optimizer, _c.train
dataloader.train.total_batch_size = 16
train.max_iter = 120
"""
    mine = Path(config).with_name("mine.py")
    mine.write_text(text)
    cfg = load_config(str(mine))
    assert numbers(cfg) == (120, 3, 2, 2, 0.04)
    assert "train.max_iter stays 120, train.eval_period 12 -> 3" in cfg.train.batch_scaling.note


def test_what_would_outlast_the_run_is_shortened(config, tmp_path):
    cfg = load_config(config, [f"{BATCH}=1", "train.max_iter=20"])
    assert numbers(cfg)[2:4] == (10, 10)
    assert cfg.train.batch_scaling.note.endswith(
        "; to a run of 20 iterations: train.checkpointer.period 24 -> 10,"
        " lr_multiplier.warmup_iters 32 -> 10"
    )
    LazyConfig.save(cfg, str(tmp_path / "config.yaml"))
    assert load_config(str(tmp_path / "config.yaml")).train == cfg.train
    # Without scaling too, and not where it is said on purpose.
    unscaled = load_config(config, ["train.max_iter=4", "lr_multiplier.warmup_iters=0"])
    assert unscaled.train.checkpointer.period == 2 and unscaled.train.batch_scaling.note
    said = ["train.max_iter=4", "train.checkpointer.period=9", "lr_multiplier.warmup_iters=9"]
    cfg = load_config(config, said)
    assert cfg.train.checkpointer.period == 9 and "stays 9, so nothing" in str(cfg.train)
    with pytest.raises(ConfigError, match="does not fit"):
        build(cfg.lr_multiplier)
