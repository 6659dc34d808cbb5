"""The moving average of the weights: what it is, where it is saved, and that it resumes."""

import json
import math
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from kddetr.checkpoint import read_checkpoint
from kddetr.engine import ConfigError, Trainer, train_defaults
from kddetr.engine.average import MovingAverage
from kddetr.engine.config.defaults import checked_values
from kddetr.engine.config.scaling import scale_to_batch
from tests.distillation.runs import interrupt, trained
from tests.tiny import assert_same_tensors, tiny_detector, tiny_distiller


class Detector(nn.Module):
    """A weight that is trained, one that is frozen, and the buffers of a batch normalisation."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))
        self.frozen = nn.Parameter(torch.tensor([0.1, 0.7]), requires_grad=False)
        self.norm = nn.BatchNorm1d(2)


@pytest.mark.parametrize("warmup", [0, 5])
def test_the_average_is_that_of_the_formula(warmup):
    model = Detector()
    average = MovingAverage(model, decay=0.9, warmup=warmup)
    wanted = {"weight": None, "norm.running_mean": None}
    generator = torch.Generator().manual_seed(0)
    for t in range(1, 8):
        d = 0.9 * (1 - math.exp(-t / warmup)) if warmup else 0.9
        state = model.state_dict()  # shares its memory with the model
        for name, before in wanted.items():
            state[name].copy_(torch.randn(state[name].shape, generator=generator))
            now = state[name].clone()
            wanted[name] = now if before is None else d * before + (1 - d) * now
        model.norm.num_batches_tracked += 1
        average.update_parameters(model)
    found = average.module.state_dict()
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, msg=name)
    assert torch.equal(found["frozen"], model.frozen)
    assert found["norm.num_batches_tracked"] == 7


def test_the_student_of_a_distiller_is_averaged_without_the_rest():
    student = tiny_detector()
    model = tiny_distiller(student, tiny_detector(seed=1))
    average = MovingAverage(model, decay=0.5)
    average.update_parameters(model)
    assert_same_tensors(average.module.state_dict(), student.state_dict())
    assert not average.module.training
    assert not any(p.requires_grad for p in average.module.parameters())
    assert all(p.requires_grad for p in student.decoder.parameters())


def options(**more):
    return {"ema": {"decay": 0.8, "warmup": 3}, "eval_period": 4, **more}


def test_a_resumed_run_has_the_average_of_an_uninterrupted_one(toy, tmp_path, dataset):
    best = {"best_metric": "ema/bbox/AP", "max_iter": 8}
    whole = toy.toy_config(tmp_path / "whole", dataset, distil=True, **options(**best))
    cut = toy.toy_config(tmp_path / "cut", dataset, distil=True, **options(**best))
    plain = toy.toy_config(tmp_path / "plain", dataset, distil=True, max_iter=8, best_metric="")
    plain.dataloader.test = plain.dataloader.evaluator = None
    uninterrupted = trained(whole)
    interrupt(cut, at=7)
    resumed = trained(cut, resume=True)
    assert_same_tensors(resumed.average.state_dict(), uninterrupted.average.state_dict())
    assert_same_tensors(resumed.model.state_dict(), uninterrupted.model.state_dict())
    # The average does not change the training.
    assert_same_tensors(trained(plain).model.state_dict(), resumed.model.state_dict())
    average = resumed.average.module.state_dict()
    assert not torch.equal(average["norm.weight"], resumed.unwrapped.student.norm.weight)
    for folder in (tmp_path / "whole/run", tmp_path / "cut/run"):
        saved = read_checkpoint(str(folder / "model_ema.pth"))
        assert "trainer" not in saved
        assert_same_tensors(saved["model"], average)
        toy.ToyDetector().load_state_dict(saved["model"])  # strictly: a plain detector's file
    lines = (tmp_path / "cut/run/metrics.json").read_text().splitlines()
    evaluated = [line for line in map(json.loads, lines) if "ema/bbox/AP" in line]
    assert [line["iteration"] + 1 for line in evaluated] == [4, 9]
    assert all("bbox/AP" in line for line in evaluated)
    record = json.loads((tmp_path / "cut/run/best.json").read_text())
    assert record["metric"] == "ema/bbox/AP"
    assert record["value"] == max(line["ema/bbox/AP"] for line in evaluated)
    best = read_checkpoint(str(tmp_path / "cut/run/model_best.pth"))["model"]
    # Its last evaluation was the best, or it is of an earlier average: never of the plain weights.
    assert not torch.equal(best["norm.weight"], resumed.unwrapped.student.norm.weight)


def test_an_average_can_begin_and_end_where_a_run_is_resumed(toy, tmp_path, dataset, caplog):
    cfg = toy.toy_config(tmp_path, dataset, max_iter=2, best_metric="")
    trained(cfg)
    cfg.train.max_iter, cfg.train.ema.decay = 4, 0.5
    assert int(trained(cfg, resume=True).average.n_averaged) == 2
    assert "has no average of the weights: it begins at iteration 2" in caplog.text
    cfg.train.max_iter, cfg.train.ema.decay = 5, 0
    assert trained(cfg, resume=True).average is None
    assert (Path(cfg.train.output_dir) / "model_ema.pth").is_file()


def test_an_average_that_has_not_begun_is_that_of_the_weights(toy, tmp_path, dataset):
    """An evaluation that a killed run has missed comes before the first update."""
    cfg = toy.toy_config(tmp_path, dataset, max_iter=4, eval_period=2, checkpointer={"period": 2})
    interrupt(cfg, at=2)
    folder = Path(cfg.train.output_dir)
    (folder / "best.json").unlink()  # killed in the evaluation after 2 iterations
    (folder / "best.json").write_text(
        json.dumps({"metric": "bbox/AP", "value": None, "iteration": None, "evaluated": None})
    )
    (folder / "metrics.json").unlink()
    cfg.train.ema.decay = 0.5
    trained(cfg, resume=True)
    lines = map(json.loads, (folder / "metrics.json").read_text().splitlines())
    first = next(line for line in lines if "ema/bbox/AP" in line)
    assert first["iteration"] == 1
    assert {n: x for n, x in first.items() if n.startswith("bbox/")} == {
        n.removeprefix("ema/"): x for n, x in first.items() if n.startswith("ema/")
    }


def test_a_finished_run_that_is_resumed_keeps_the_file_and_its_results(toy, tmp_path, dataset):
    cfg = toy.toy_config(tmp_path, dataset, **options(max_iter=4))
    trained(cfg)
    file = Path(cfg.train.output_dir) / "model_ema.pth"
    before = file.read_bytes()
    assert read_checkpoint(str(file))["card"]["results"]
    trained(cfg, resume=True)
    assert file.read_bytes() == before


def test_a_scaled_config_averages_over_as_many_images(toy, tmp_path):
    cfg = toy.toy_config(tmp_path, ema={"decay": 0.99, "warmup": 2000})
    cfg.train.batch_scaling.reference = 4
    cfg.dataloader.train.total_batch_size = 8
    scale_to_batch(cfg)
    assert cfg.train.ema.decay == pytest.approx(0.99**2, abs=1e-6)
    assert cfg.train.ema.warmup == 1000
    cfg = toy.toy_config(tmp_path)
    cfg.train.batch_scaling.reference = 4
    cfg.dataloader.train.total_batch_size = 8
    scale_to_batch(cfg)
    assert (cfg.train.ema.decay, cfg.train.ema.warmup) == (0, 0)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"ema": {"decay": 1.0}}, "decay must be below 1"),
        ({"ema": {"decay": -0.1}}, "ema.decay must be at least 0"),
        ({"best_metric": "ema/bbox/AP"}, "there is no average: set train.ema.decay"),
    ],
)
def test_what_makes_no_average_is_refused(change, sentence):

    with pytest.raises(ConfigError, match=sentence):
        checked_values(OmegaConf.merge(train_defaults(), change))


def test_a_wrong_result_of_the_average_is_refused(toy, tmp_path, dataset):
    cfg = toy.toy_config(tmp_path, dataset, ema={"decay": 0.5}, best_metric="ema/bbox/AQ")
    with pytest.raises(ConfigError, match="ema/bbox/AQ will have no value"):
        Trainer(cfg)
