"""Values of a config have the types of their arguments and lie in their ranges, everywhere."""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from detectron2.config import LazyCall as L
from torch import nn

from kddetr.engine import ConfigError, build, cosine_schedule, load_config, step_schedule
from kddetr.engine.config.argument_types import fits
from kddetr.losses import BinaryCrossEntropy, GIoULoss, KLDivergence, L1Loss
from kddetr.points import AtAnswers, NearbySampler

ROOT = Path(__file__).parents[2]
QUICKSTART = str(ROOT / "configs/quickstart/distilled.py")
RCNN = str(ROOT / "configs/quickstart/faster_rcnn_alone.py")
STUDENT = "model.student"


@pytest.mark.parametrize(
    ("value", "hint", "expected"),
    [
        (1, int, True),
        (True, int, False),
        (1.0, int, False),
        ("1", int, False),
        (1, float, True),
        (True, float, False),
        ("1e-4", float, False),
        (1, bool, False),
        (2024, str, False),
        (None, str | None, True),
        (None, int, False),
        ("a", Literal["a", "b"], True),
        ("c", Literal["a", "b"], False),
        ([1, 2], Sequence[int], True),
        ([1, True], Sequence[int], False),
        ("res5", Sequence[str], False),
        ([0.9], tuple[float, float], False),
        ([0.9, 1], tuple[float, float], True),
        ({"a": 1}, Mapping[str, float], True),
        ({"a": "b"}, Mapping[str, float], False),
        (5, nn.Module, False),
        (None, nn.Module, False),
        ({"_target_": "x.Y"}, nn.Module, True),
        (print, Callable[[], None], True),
        (5, Callable[[], None], False),
        (5, Any, True),
    ],
)
def test_fits(value, hint, expected):
    assert fits(value, hint) is expected


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("optimizer.lr=true", "of type float, not True"),
        ("optimizer.lr='1e-4'", "of type float, not '1e-4'"),
        ("optimizer.lr=null", "of type float, not null"),
        ("optimizer.lr=nan", "finite"),
        ("optimizer.lr=1/1000", "of type float"),
        ("optimizer.weight_decay=null", "of type float"),
        ("optimizer.betas=[0.9]", "list of 2 values"),
        ("optimizer._target_=torch.optim.SGD", "betas: torch.optim.SGD has no such argument"),
        ("optimizer._target_=torch.optim.SGDX", "torch.optim has no SGDX; did you mean SGD?"),
        ("optimizer._target_=nowhere.SGD", "there is no module nowhere"),
        ("optimizer._target_=5", "must be the import path"),
        ("+optimizer.nothing=5", "has no such argument"),
        ("model.weight=null", "of type float, not null"),
        ("model.weight=inf", "finite"),
        ("model.student.num_queries=10.5", "of type int, not 10.5"),
        ("model.student.num_queries=null", "of type int"),
        ("model.student.backbone=null", "of type Module, not null"),
        ("model.student.in_features=stage2", "list of str"),
        ("model.student.checkpoint_activations=1", "of type bool"),
        ("model.sampler.samplers.0.count=true", "of type int, not True"),
        ("model.sampler=null", "of type PointSampler"),
        ("dataloader.train.total_batch_size=null", "of type int, not null"),
        ("dataloader.train.num_workers=-1", "at least 0"),
        ("dataloader.test.num_workers=-1", "at least 0"),
        ("dataloader.test.num_workers=1.5", "of type int"),
        ("dataloader.train.seed=12345678901234567890", "64 bits"),
        ("dataloader.train.dataset.filter_empty=flase", "of type bool or null, not 'flase'"),
        ("lr_multiplier.warmup_iters=null", "of type int"),
        ("train.seed=12345678901234567890", "below 2**63"),
        ("train.max_iter=10.5", "of type int"),
        ("train.max_iter='7'", "of type int"),
        ("train.output_dir=", "output_dir is empty"),
    ],
)
def test_a_wrong_value_is_refused_when_the_config_is_loaded(override, words):
    with pytest.raises(ConfigError) as error:
        load_config(QUICKSTART, [override])
    assert words in str(error.value) and override.split(".")[0].lstrip("+") in str(error.value)


@pytest.mark.parametrize(
    "text",
    ["model = L(deformable_detr)(num_classes=3)", "model = L(deformable_detr)(backbone=1)"],
)
def test_an_argument_that_is_missing_or_wrong_in_a_file(tmp_path, text):
    head = "from detectron2.config import LazyCall as L\nfrom kddetr.detectors import *\n"
    (tmp_path / "mine.py").write_text(head + text)
    with pytest.raises(ConfigError, match=r"needs the argument|model\.backbone must be of type"):
        load_config(str(tmp_path / "mine.py"))


@pytest.mark.parametrize(
    ("file", "override"),
    [
        (QUICKSTART, "num_queries=0"),
        (QUICKSTART, "num_queries=-1"),
        (QUICKSTART, "num_classes=0"),
        (QUICKSTART, "num_detections=0"),
        (QUICKSTART, "decoder_layers=0"),
        (QUICKSTART, "encoder_layers=-1"),
        (QUICKSTART, "dropout=1.5"),
        (QUICKSTART, "num_heads=3"),
        (QUICKSTART, "groups=-1"),
        (QUICKSTART, "anchor_size=1.5"),
        (QUICKSTART, "in_features=[stage9]"),
        (QUICKSTART, "in_features=[]"),
        (QUICKSTART, "backbone.channels.0=0"),
        (QUICKSTART, "backbone.channels=[8]"),
        (QUICKSTART, "backbone.out_features=[stage7]"),
        (QUICKSTART, "backbone.norm=nothing"),
        (RCNN, "num_queries=0"),
    ],
)
def test_a_detector_out_of_range_is_refused_when_it_is_built(file, override):
    where = STUDENT if file == QUICKSTART else "model"
    cfg = load_config(file, [f"{where}.{override}"])
    with pytest.raises(ConfigError):
        build(cfg.model.student if file == QUICKSTART else cfg.model)


@pytest.mark.parametrize("wrong", [-1, math.nan, math.inf])
@pytest.mark.parametrize(
    ("part", "argument"),
    [
        (KLDivergence, "weight"),
        (KLDivergence, "temperature"),
        (BinaryCrossEntropy, "weight"),
        (BinaryCrossEntropy, "temperature"),
        (L1Loss, "weight"),
        (GIoULoss, "weight"),
        (GIoULoss, "eps"),
        (AtAnswers, "shift"),
        (NearbySampler, "scale"),
    ],
)
def test_a_part_of_the_loss_out_of_range(part, argument, wrong):
    with pytest.raises(ValueError, match=f"{argument} must be"):
        part(**{argument: wrong})


@pytest.mark.parametrize("wrong", [-1, 0])
def test_a_temperature_is_above_zero(wrong):
    for term in (KLDivergence, BinaryCrossEntropy):
        with pytest.raises(ValueError, match="temperature must be a number above 0"):
            term(temperature=wrong)


def test_the_weight_of_the_distillation_is_not_negative():
    cfg = load_config(QUICKSTART, ["model.weight=-1"])
    cfg.model.teacher = cfg.model.teacher.detector.model
    with pytest.raises(ConfigError, match="weight must be a number of at least 0, not -1"):
        build(cfg.model)


@pytest.mark.parametrize(
    "change",
    [
        {"lr": -1.0},
        {"weight_decay": -1.0},
        {"betas": [0.9, 2.0]},
        {"params": {"base_lr": -0.1}},
        {"params": {"lr_factors": {"0": -1.0}}},
        {"params": {"weight_decay_norm": -0.1}},
        {"params": {"weight_decay_bias": math.nan}},
    ],
)
def test_an_optimizer_out_of_range(change):
    cfg = load_config(QUICKSTART)
    for key, value in change.items():
        cfg.optimizer[key] = {**cfg.optimizer[key], **value} if key == "params" else value
    with pytest.raises(ConfigError, match=r"Invalid|must be"):
        build(cfg.optimizer, params__model=nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2)))


@pytest.mark.parametrize(
    ("schedule", "change"),
    [
        (step_schedule, {"gamma": -0.1}),
        (step_schedule, {"warmup_iters": -1}),
        (step_schedule, {"warmup_factor": math.nan}),
        (step_schedule, {"max_iter": 0}),
        (cosine_schedule, {"end_factor": -1.0}),
    ],
)
def test_a_schedule_out_of_range(schedule, change):
    with pytest.raises(ValueError, match=r"must be a (whole )?number of at least"):
        schedule(**{"max_iter": 10, **change})


class OfAUser:
    """A class of a user's, whose arguments are checked where they are annotated."""

    def __init__(self, count: int = 3, limit=1.0, flag=False, name: str = None):  # noqa: RUF013
        self.values = count, limit, flag, name


def test_the_arguments_of_a_users_class(tmp_path):
    head = f"import sys\nfrom detectron2.config import LazyCall as L\nmodel = L({OfAUser.__name__})"
    head = head.replace("model", f"{inspect.getsource(OfAUser)}\nmodel")
    file = tmp_path / "mine.py"
    file.write_text(f"{head}(limit='auto', flag=3, name=None)")
    assert build(load_config(str(file)).model).values == (3, "auto", 3, None)
    assert build(load_config(str(file), ["model.limit=inf"]).model).values[1] == math.inf
    for override in ("model.count=1.5", "model.count=true", "model.limit=nan"):
        with pytest.raises(ConfigError, match=r"model\.(count|limit) must be"):
            load_config(str(file), [override])


class Mistaken:
    """A class of a user's with an error in it."""

    def __init__(self, n: int):
        torch.zeros(2) + torch.zeros(n)


def test_only_an_error_of_the_arguments_becomes_a_sentence():
    with pytest.raises(
        ConfigError, match=r"Linear: it cannot be built .*RuntimeError: .*negative dimension"
    ):
        build(L(nn.Linear)(in_features=-1, out_features=2))
    with pytest.raises(ConfigError, match=r"TypeError: .*unexpected keyword argument 'm'"):
        build(L(Mistaken)(m=3))
    with pytest.raises(RuntimeError, match="must match"):
        build(L(Mistaken)(n=3))
