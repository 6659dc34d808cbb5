"""What a training step takes as the losses of a model, with and without mixed precision."""

import logging

import pytest
import torch
from detectron2.utils.events import EventStorage
from torch import nn

from kddetr.engine.step import StepTrainer
from kddetr.errors import ConfigError, UsageError
from tests.tiny import tiny_batch, tiny_detector, tiny_distiller


class Model(nn.Module):
    """A weight of 2, whose losses are made by a function."""

    def __init__(self, make):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(2.0))
        self.make = make

    def forward(self, batch):
        return self.make(self.weight)


def step(make, **options) -> tuple[dict[str, float], float]:
    """What is logged in a step of 0.1, and how far the weight moved."""
    model = Model(make).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loader = iter(lambda: [{}], None)
    trainer = StepTrainer(model=model, data_loader=loader, optimizer=optimizer, seed=0, **options)
    with EventStorage(0) as storage:
        trainer.run_step()
    logged = {name: history.latest() for name, history in storage.histories().items()}
    return logged, 2.0 - model.weight.item()


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda w: None, "Model returned None instead of its losses"),
        (lambda w: [{"instances": 3}], "Model returned a list instead of its losses"),
        (lambda w: w**2, r"Model returned a Tensor of shape \(\) instead of its losses"),
        (lambda w: {"loss": w.expand(3)}, r"shape \(3,\) as the loss 'loss'"),
        (lambda w: {"loss": w, "names": ["a"]}, "a list as the loss 'names'"),
        (lambda w: {"loss": w.detach()}, r"None of the losses of Model has a gradient \(loss\)"),
        (lambda w: {"loss": torch.zeros(())}, "None of the losses of Model has a gradient"),
        (lambda w: {"grad_norm": w}, "under the name 'grad_norm', under which the log has"),
        (lambda w: {"losses/kd": w}, "under the name 'losses/kd'"),
    ],
)
def test_what_is_no_loss_is_refused(make, sentence):
    with pytest.raises(UsageError, match=sentence):
        step(make)


def test_a_batch_without_a_loss_is_refused():
    with pytest.raises(ConfigError, match="There is no loss in iteration 0"):
        step(lambda w: {})


@pytest.mark.parametrize("weight", [None, 0.0, 1.0])
def test_images_without_labels_train_nothing_but_a_distilled_student(weight):
    """Otherwise a loader that lost the labels would go unnoticed, with losses of 0."""
    model = tiny_detector(seed=1).train()
    if weight is not None:
        model = tiny_distiller(model, tiny_detector(seed=2), weight=weight)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loader = iter(lambda: tiny_batch(boxes=(None, None)), None)
    trainer = StepTrainer(model=model, data_loader=loader, optimizer=optimizer, seed=0)
    with EventStorage(0):
        if weight:
            trainer.run_step()
            return
        with pytest.raises(ConfigError, match="none of its images has labels"):
            trainer.run_step()


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_constants_of_a_model_are_logged_and_not_part_of_the_loss(dtype, caplog):
    """Such as an accuracy, or the loss of a part that is frozen."""

    def make(weight):
        return {"loss": weight**2, "accuracy": torch.tensor(0.7), "rate": float("nan"), "none": 0}

    with caplog.at_level(logging.WARNING):
        logged, moved = step(make, amp_dtype=dtype)
    assert logged["total_loss"] == logged["loss"] == pytest.approx(4)
    assert moved == pytest.approx(0.4)
    assert logged["accuracy"] == pytest.approx(0.7) and logged["none"] == 0
    assert logged["rate"] != logged["rate"]
    assert "Model returned accuracy, rate without a gradient: only logged" in caplog.text
