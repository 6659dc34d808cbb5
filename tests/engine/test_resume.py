"""Resuming with another batch, config or folder than the run had: what takes effect, what does
not.
"""

import json
import logging
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from omegaconf import OmegaConf
from torch import nn

from kddetr.checkpoint import CheckpointError, read_checkpoint
from kddetr.engine import ConfigError, Trainer
from kddetr.engine.config.differences import differences
from kddetr.engine.config.scaling import scale_to_batch
from kddetr.engine.optimizer_state import check_alike
from kddetr.engine.resuming import converted


def config(toy, folder: Path):
    cfg = toy.toy_config(folder, best_metric="", eval_period=0)
    cfg.train.batch_scaling.reference = 4
    cfg.lr_multiplier.milestones = [0.25]
    cfg.dataloader.test = cfg.dataloader.evaluator = None
    return cfg


@pytest.fixture(scope="module")
def folder_of_cut(tmp_path_factory) -> Path:
    import engine_toy

    cfg = config(engine_toy, tmp_path_factory.mktemp("cut"))
    started(cfg).train()
    folder = Path(cfg.train.output_dir)
    (folder / "last_checkpoint").write_text("model_0000008.pth")
    for name in ("model_final.pth", "model_0000011.pth"):
        (folder / name).unlink()
    return folder


@pytest.fixture
def cut(toy, tmp_path, folder_of_cut):
    """The config of a run of 12 iterations of 4 images, of which 9 are trained."""
    shutil.copytree(folder_of_cut, tmp_path / "run")
    return config(toy, tmp_path)


def started(cfg, *, resume: bool = False) -> Trainer:
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=resume)
    return trainer


@pytest.mark.parametrize(("batch", "start", "length"), [(6, 6, 8), (2, 18, 24), (5, 7, 10)])
def test_another_batch_goes_on_after_the_images_that_were_seen(cut, batch, start, length, caplog):
    folder = Path(cut.train.output_dir)
    evaluation = {"iteration": 8, "bbox/AP": 1.0}
    (folder / "metrics.json").write_text(json.dumps(evaluation) + "\n")
    cut.dataloader.train.total_batch_size = batch
    scale_to_batch(cut)
    started(cut, resume=True)  # and killed before its first checkpoint: this counts once
    trainer = started(cut, resume=True)
    assert (trainer.start_iter, trainer.max_iter) == (start, length)
    assert trainer.data_loader.start_iteration == trainer.scheduler.last_epoch == start
    rate = cut.optimizer.lr * 0.1  # after the drop, whose place is a fraction of the images too
    assert trainer.optimizer.param_groups[1]["lr"] == pytest.approx(rate)
    assert f"which saw 36 images, count as {start}" in caplog.text
    trainer.train()
    saved = read_checkpoint(str(folder / "model_final.pth"))
    assert saved["iteration"] == saved["trainer"]["iteration"] == length - 1
    assert saved["trainer"]["batch"] == batch
    lines = [json.loads(text) for text in (folder / "metrics.json").read_text().splitlines()]
    assert lines[0] == {"iteration": start - 1, "bbox/AP": 1.0}
    assert max(line["iteration"] for line in lines if "total_loss" in line) == length - 1
    assert json.loads((folder / "metrics_batch_4.json").read_text()) == evaluation


def test_the_batch_of_a_checkpoint_of_an_earlier_version_is_that_of_the_config(cut):
    file = Path(cut.train.output_dir) / "model_0000008.pth"
    data = torch.load(file)
    for key in ("batch", "optimizer", "parameters"):
        del data["trainer"][key]
    torch.save(data, file)
    cut.dataloader.train.total_batch_size = 6
    assert started(cut, resume=True).start_iter == 6


def test_images_seen_are_rounded_down():
    assert [converted(n, 4, 8) for n in (8, 9, 1)] == [4, 4, 0]
    assert converted(9, None, 8) == converted(9, 4, None) == 9


def test_a_run_with_nothing_left_says_so(cut, caplog):
    cut.train.max_iter = 9
    trainer = started(cut, resume=True)
    with caplog.at_level(logging.INFO, logger="kddetr"):
        trainer.train()
    assert "Nothing is left to train: 9 iterations are done" in caplog.text
    final = read_checkpoint(str(Path(cut.train.output_dir) / "model_final.pth"))
    assert final["iteration"] == final["trainer"]["iteration"] == 8


def test_a_finished_run_is_not_evaluated_twice(toy, tmp_path, dataset, monkeypatch):
    cfg = toy.toy_config(tmp_path, dataset, max_iter=2)
    started(cfg).train()
    final = tmp_path / "run/model_final.pth"
    before = final.read_bytes()
    monkeypatch.setattr(Trainer, "test", lambda *_: pytest.fail("evaluated again"))
    started(cfg, resume=True).train()
    assert final.read_bytes() == before


def test_options_of_todays_config_take_effect_and_are_listed(cut, caplog):
    cut.optimizer.lr, cut.optimizer.weight_decay, cut.optimizer.betas = 0.5, 0.3, [0.5, 0.6]
    trainer = started(cut, resume=True)
    for group, factor in zip(trainer.optimizer.param_groups, (0.5, 1.0), strict=True):
        assert group["lr"] == pytest.approx(0.5 * factor * 0.1)  # after the drop
        assert group["initial_lr"] == 0.5 * factor
        assert (group["weight_decay"], list(group["betas"])) == (0.3, [0.5, 0.6])
    for words in ("optimizer.lr: 0.02 -> 0.5", "weight_decay: 0.0001 -> 0.3", "[0.5, 0.6]"):
        assert words in caplog.text
    moments = read_checkpoint(str(Path(cut.train.output_dir) / "model_0000008.pth"))
    moments = moments["trainer"]["_trainer"]["optimizer"]["state"]
    for mine, saved in zip(trainer.optimizer.state_dict()["state"].values(), moments.values()):
        assert torch.equal(mine["exp_avg"], saved["exp_avg"])


def test_config_yaml_is_what_was_used(cut):
    folder = Path(cut.train.output_dir)
    started(cut, resume=True)
    assert not list(folder.glob("config_until*"))
    cut.optimizer.lr = 0.5
    started(cut, resume=True)
    rates = {
        file.name: yaml.safe_load(file.read_text())["optimizer"]["lr"]
        for file in folder.glob("config*.yaml")
    }
    assert rates == {"config.yaml": 0.5, "config_until_0000009.yaml": 0.02}
    cut.optimizer._target_ = torch.optim.SGD
    del cut.optimizer.betas
    with pytest.raises(ConfigError, match=r"torch\.optim\.adamw\.AdamW, and the config has"):
        started(cut, resume=True)
    assert yaml.safe_load((folder / "config.yaml").read_text())["optimizer"]["betas"]
    (folder / "config.yaml").unlink()
    with pytest.raises(CheckpointError, match="optimizer AdamW, and the config has SGD"):
        started(cut, resume=True)


def test_config_yaml_stays_where_nothing_is_left_to_train(cut, caplog):
    folder = Path(cut.train.output_dir)
    (folder / "metrics.json").write_text('{"iteration": 8, "bbox/AP": 1.0}\n')
    cut.train.max_iter, cut.optimizer.lr, cut.dataloader.train.total_batch_size = 9, 0.5, 2
    started(cut, resume=True)
    assert "config.yaml stays as it was" in caplog.text and "raises" not in caplog.text
    assert yaml.safe_load((folder / "config.yaml").read_text())["optimizer"]["lr"] == 0.02
    assert not list(folder.glob("config_until*")) and not list(folder.glob("metrics_*"))


def test_weights_to_start_from_are_not_read_when_a_run_is_resumed(cut, caplog):
    cut.train.init_checkpoint = "other.pth"
    started(cut, resume=True)
    assert "train.init_checkpoint=other.pth is not read" in caplog.text
    assert "train.init_checkpoint: " not in caplog.text
    saved = yaml.safe_load((Path(cut.train.output_dir) / "config.yaml").read_text())
    assert saved["train"]["init_checkpoint"] == ""


def test_metrics_of_iterations_that_are_trained_again_are_set_aside(cut):
    """An evaluation of the run before would otherwise pass for one of a shorter run."""
    file = Path(cut.train.output_dir) / "metrics.json"
    lines = [f'{{"iteration": {at}, "bbox/AP": 1.0}}\n' for at in (2, 9, 12)]
    file.write_bytes("".join(lines).encode() + b'\xff\n3\n{"iteration": 1')  # killed in a line
    started(cut, resume=True)
    assert file.read_text() == "".join(lines[:2])
    assert file.with_name("metrics_dropped.json").read_text() == lines[2]
    file.write_bytes(b"\xff\n")
    cut.dataloader.train.total_batch_size = 2
    assert started(cut, resume=True).start_iter == 18


def test_a_run_that_starts_anew_keeps_the_best_weights_of_the_one_before(cut, caplog):
    folder = Path(cut.train.output_dir)
    for file in folder.glob("model_*.pth"):
        file.rename(folder / "model_best.pth")
    (folder / "model_best.json").write_text("card")
    assert started(cut, resume=True).start_iter == 0
    assert "best weights of an earlier run are kept as" in caplog.text
    assert (folder / "earlier_best.json").read_text() == "card"
    assert (folder / "earlier_best.pth").is_file() and not (folder / "model_best.pth").exists()
    lines = [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]
    assert not lines


@pytest.mark.parametrize("factors", [{}, {"head": 0.5}])
def test_other_parameter_groups_are_refused(cut, factors):
    """With another part of the names the groups may have as many parameters as before."""
    cut.optimizer.params.lr_factors = factors
    with pytest.raises(CheckpointError, match=r"other parameter groups.*start a new run"):
        started(cut, resume=True)


@pytest.mark.parametrize("damage", ["", "a: [", "\x00\x01", "- 1", None])
def test_a_damaged_config_yaml_does_not_keep_a_run_from_resuming(cut, damage, caplog):
    file = Path(cut.train.output_dir) / "config.yaml"
    file.unlink() if damage is None else file.write_text(damage)
    assert started(cut, resume=True).start_iter == 9
    assert "what has changed since then is not known" in caplog.text
    assert yaml.safe_load(file.read_text())["optimizer"]["lr"] == 0.02


def test_a_longer_run_after_a_drop_does_not_raise_the_rate_in_silence(cut, caplog):
    started(cut, resume=True)
    assert "raises the learning rate" not in caplog.text
    cut.train.max_iter = 48
    trainer = started(cut, resume=True)
    override = "lr_multiplier.milestones=[0.0625]"
    assert (
        override in caplog.text and "was 0.001, and from iteration 9 on it is 0.01" in caplog.text
    )
    assert trainer.optimizer.param_groups[0]["lr"] == 0.01
    (Path(cut.train.output_dir) / "config.yaml").write_text("")
    caplog.clear()
    cut.lr_multiplier.milestones = [0.0625]
    trainer = started(cut, resume=True)
    assert "raises the learning rate" not in caplog.text
    assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(0.001)


def test_a_name_and_its_callable_are_the_same_setting(toy, tmp_path):
    one = toy.toy_config(tmp_path)
    other = OmegaConf.create(OmegaConf.to_container(one), flags={"allow_objects": True})
    other.optimizer._target_ = "torch.optim.AdamW"
    other.lr_multiplier.max_iter = 12  # what "${train.max_iter}" stands for
    assert differences(one, other) == {}
    other.lr_multiplier.milestones = [0.1, 0.2, 0.3]
    other.train.seed = 1
    assert differences(one, other) == {
        "lr_multiplier.milestones": ([0.5], [0.1, 0.2, 0.3]),
        "train.seed": (0, 1),
    }


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.SGD, torch.optim.Adafactor])
def test_a_sound_state_is_alike_and_one_that_lacks_an_entry_is_not(kind):
    """PyTorch itself would stop at the first step."""
    options = {"momentum": 0.9} if kind is torch.optim.SGD else {}
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(4, 2))
    optimizer = kind(model.parameters(), lr=0.1, **options)
    sum(p.sum() for p in model.parameters()).backward()
    optimizer.step()
    check_alike(optimizer)
    state = optimizer.state[model[0].weight]  # of the only weight with four dimensions
    *others, last = state
    del state[last]
    if others:
        with pytest.raises(ValueError, match=f"{last} is missing for some"):
            check_alike(optimizer)
    optimizer.state[model[1].bias][last] = torch.Size([1])
    with pytest.raises(ValueError, match=f"{last} is not of one kind"):
        check_alike(optimizer)


@pytest.mark.parametrize("batch", ["8", torch.ones(2), 1.5])
def test_a_batch_of_another_type_in_a_checkpoint_is_a_sentence(toy, tmp_path, dataset, batch):
    cfg = toy.toy_config(tmp_path, dataset, eval_period=0, max_iter=1)
    trainer = Trainer(cfg)
    state = trainer.state_dict() | {"batch": batch}
    with pytest.raises(TypeError, match="its batch is a"):
        trainer.load_state_dict(state)
