"""Which precision a run trains in: what the config says, and otherwise what the device has."""

import logging
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from kddetr.detectors import detectron2_detector
from kddetr.engine import ConfigError, Trainer, load_config
from kddetr.engine.config.defaults import checked_values
from kddetr.engine.precision import AUTO, amp_dtype, check_precision
from tests.stock_models import tiny_faster_rcnn, tiny_retinanet
from tests.tiny import tiny_batch, tiny_detector, tiny_distiller

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def amp(enabled=AUTO, dtype="bfloat16"):
    return OmegaConf.create({"enabled": enabled, "dtype": dtype})


@pytest.fixture(params=[True, False], ids=["a card with bfloat16", "a card that emulates it"])
def card(request, monkeypatch):
    """Whether a pretended card computes bfloat16 itself; every card can emulate it."""

    def is_bf16_supported(including_emulation=True):
        return request.param or including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_bf16_supported)
    return request.param


def test_left_to_the_device(card):
    assert amp_dtype(amp(), CUDA) is (torch.bfloat16 if card else None)
    assert amp_dtype(amp(dtype="float16"), CUDA) is torch.float16
    assert amp_dtype(amp(), CPU) is None and amp_dtype(amp(dtype="float16"), CPU) is None


def test_what_the_config_says_is_obeyed(card):
    for device in (CPU, CUDA):
        assert amp_dtype(amp(True), device) is torch.bfloat16
        assert amp_dtype(amp(False), device) is None
        check_precision(amp(True), device)
    with pytest.raises(ConfigError, match="float16 needs CUDA"):
        check_precision(amp(True, "float16"), CPU)


@pytest.mark.parametrize("card", [True], indirect=True)
def test_regions_are_not_rounded_unless_the_config_says_so(card):
    rcnn = detectron2_detector(tiny_faster_rcnn())
    assert amp_dtype(amp(), CUDA, rcnn) is None
    assert amp_dtype(amp(True), CUDA, rcnn) is torch.bfloat16
    assert amp_dtype(amp(dtype="float16"), CUDA, rcnn) is torch.float16
    assert amp_dtype(amp(), CUDA, detectron2_detector(tiny_retinanet())) is torch.bfloat16
    student = tiny_detector()
    assert amp_dtype(amp(), CUDA, tiny_distiller(student, rcnn)) is None
    assert amp_dtype(amp(), CUDA, tiny_distiller(student, tiny_detector(seed=1))) is torch.bfloat16


@pytest.mark.parametrize("value", ["maybe", "yes", 1])
def test_another_value_is_refused(toy, tmp_path, value):
    cfg = toy.toy_config(tmp_path)
    cfg.train.amp.enabled = value
    with pytest.raises(ConfigError, match=r"train\.amp\.enabled must be"):
        checked_values(cfg.train)


def started(cfg, *, resume: bool) -> Trainer:
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=resume)
    return trainer


def short(toy, folder: Path, **train):
    cfg = toy.toy_config(folder, best_metric="", eval_period=0, **train)
    cfg.dataloader.test = cfg.dataloader.evaluator = None
    return cfg


@pytest.mark.parametrize("had", [AUTO, True, False])
@pytest.mark.parametrize("says", [AUTO, True, False])
def test_a_resumed_run_keeps_its_precision_unless_the_config_says_another(
    toy, tmp_path, caplog, had, says
):
    started(short(toy, tmp_path, max_iter=1, amp={"enabled": had}), resume=False).train()
    used = had is True  # auto is float32 on the CPU
    saved = load_config(str(tmp_path / "run/config.yaml")).train.amp.enabled
    assert saved is used
    expected = used if says == AUTO else says
    with caplog.at_level(logging.INFO, logger="kddetr"):
        resumed = started(short(toy, tmp_path, max_iter=2, amp={"enabled": says}), resume=True)
    assert resumed._trainer.amp_dtype is (torch.bfloat16 if expected else None)
    name = "bfloat16" if expected else "float32"
    assert sum(f" in {name}" in text for text in caplog.messages) == 1
    assert ("train.amp.enabled: " in caplog.text) is (expected is not used)
    resumed.train()
    assert load_config(str(tmp_path / "run/config.yaml")).train.amp.enabled is expected


def test_float16_trains_a_distillation():
    """On a CPU, where autocast has float16 too; the scale of the loss does not change its value."""
    distiller = tiny_distiller(tiny_detector("dino", seed=1), tiny_detector("dino", seed=2))
    torch.manual_seed(0)
    exact = distiller(tiny_batch())
    torch.manual_seed(0)
    with torch.autocast("cpu", dtype=torch.float16):
        rounded = distiller(tiny_batch())
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
    scaler.scale(sum(rounded.values())).backward()
    assert all(v.dtype is torch.float32 for v in rounded.values())
    total = sum(v.item() for v in exact.values())
    assert sum(v.item() for v in rounded.values()) == pytest.approx(total, rel=0.02)
    assert all(p.grad.isfinite().all() for p in distiller.parameters() if p.requires_grad)
