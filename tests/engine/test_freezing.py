"""Freezing parts of a detector by name."""

import pytest
import torch

from kddetr.engine import ConfigError, Trainer
from kddetr.engine.freezing import freeze, frozen_norms
from tests.distillation.runs import trained
from tests.tiny import tiny_detector, tiny_distiller


@pytest.mark.parametrize("distil", [False, True])
def test_frozen_weights_and_statistics_stay(toy, tmp_path, dataset, distil):
    freeze = ["backbone", "head.*.bias"]
    cfg = toy.toy_config(tmp_path, dataset, distil=distil, freeze=freeze, max_iter=4, eval_period=2)
    cfg.optimizer.params.lr_factors = None
    start = Trainer(cfg)
    before = {n: x.clone() for n, x in start.unwrapped.state_dict().items()}
    trainer = trained(cfg)
    model = trainer.unwrapped.student if distil else trainer.unwrapped
    changed = {
        name.removeprefix("student.")
        for name, value in trainer.unwrapped.state_dict().items()
        if not torch.equal(value, before[name])
    }
    assert changed - {"projection.weight", "projection.bias"} == {
        *("norm.weight", "norm.bias", "head.1.weight")
    }
    assert torch.equal(model.backbone[1].running_mean, torch.zeros(8))
    count = sum(len(group["params"]) for group in trainer.optimizer.param_groups)
    assert count == (5 if distil else 3)


def test_patterns_name_modules_and_weights_of_the_student():
    model = tiny_distiller(tiny_detector(), tiny_detector(seed=1))
    freeze(model, ["neck", "decoder.layers.*.self_attention.value.weight"])
    wanted = {f"decoder.layers.{i}.self_attention.value.weight" for i in range(2)}
    wanted |= {f"neck.{name}" for name, _ in model.student.neck.named_parameters()}
    assert {n for n, p in model.student.named_parameters() if not p.requires_grad} == wanted
    assert frozen_norms(model, ["backbone"]) == []  # FrozenBatchNorm2d has no statistics to keep


def test_a_pattern_that_names_nothing_is_refused():
    with pytest.raises(ConfigError, match=r"names bakcbone, which is no weight .* mean backbone"):
        freeze(tiny_detector(), ["bakcbone"])


@pytest.mark.parametrize("distil", [False, True])
def test_a_detector_without_anything_to_train_is_refused(toy, tmp_path, dataset, distil):
    """Also where a projection would be left, which belongs to no detector."""
    cfg = toy.toy_config(tmp_path, dataset, distil=distil, freeze=["*"])
    with pytest.raises(ConfigError, match="leaves nothing of the ToyDetector to train"):
        Trainer(cfg)


def test_a_shared_weight_is_frozen_by_each_of_its_names():
    model = torch.nn.ModuleDict({"first": torch.nn.Linear(2, 2), "other": torch.nn.Linear(2, 2)})
    model["second"] = model["first"]
    freeze(model, ["second.weight"])
    assert not model["first"].weight.requires_grad and model["first"].bias.requires_grad
    freeze(model, ["second"])
    assert not model["first"].bias.requires_grad
