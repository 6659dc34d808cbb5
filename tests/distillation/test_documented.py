"""The sampler, the loss and the loss term that docs/your_own.md shows work as it says."""

import re
from pathlib import Path

import pytest
import torch
from detectron2.utils.events import EventStorage

from kddetr import KDDETR
from kddetr.losses import L1Loss, WeightedMeanLoss
from kddetr.points import GeneralSampler, JointSampler, SpecificSampler
from tests.tiny import tiny_batch, tiny_detector

PAGE = Path(__file__).parents[2] / "docs" / "your_own.md"


def documented(name: str) -> type:
    """The class of that name, made by running its block of code."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (code,) = (block for block in blocks if f"class {name}" in block)
    names: dict = {}
    exec(code, names)
    return names[name]


def distillation_losses(*, sampler=None, loss=None) -> dict[str, float]:
    """The distillation losses of one training step of a tiny pair; they have a gradient."""
    model = KDDETR(
        student=tiny_detector(seed=1),
        teacher=tiny_detector(seed=2, decoder_layers=3),
        sampler=sampler or JointSampler([GeneralSampler(count=4), SpecificSampler()]),
        loss=loss or WeightedMeanLoss(),
    ).train()
    torch.manual_seed(0)
    losses = {n: value for n, value in model(tiny_batch()).items() if n.startswith("kd_")}
    sum(losses.values()).backward()
    return {name: value.item() for name, value in losses.items()}


@pytest.mark.parametrize("count", [3, 100])
def test_sampler(count):
    """Also where it asks for more points than the teacher has queries."""
    near = documented("NearObjects")(count=count)
    losses = distillation_losses(sampler=JointSampler([near, SpecificSampler()]))
    assert {"kd_near/class", "kd_specific/giou"} <= losses.keys()


def test_loss():
    """It is computed for each group, and the weight is its factor."""
    light, heavy = (distillation_losses(loss=documented("LastBoxes")(weight=w)) for w in (2.0, 6.0))
    assert light.keys() == {"kd_general/bbox", "kd_specific/bbox"}
    for name, value in light.items():
        assert value > 0 and heavy[name] == pytest.approx(3 * value)


def test_a_value_for_the_log():
    """It is in the log, and the loss is the one without it."""
    with EventStorage(0) as storage:
        losses = distillation_losses(loss=documented("WithAgreement")(loss=WeightedMeanLoss()))
    assert losses == distillation_losses()
    assert 0 <= storage.latest()["my/agreement"][0] <= 1


def test_loss_term():
    """Its weight is a factor of its loss, and the other terms are as without it."""
    term = documented("SmoothL1")
    without, once, thrice = (
        distillation_losses(loss=WeightedMeanLoss(box_losses=[L1Loss(), *extra]))
        for extra in ([], [term(weight=1.0)], [term(weight=3.0)])
    )
    assert once.keys() - without.keys() == {"kd_general/smooth", "kd_specific/smooth"}
    for group in ("kd_general", "kd_specific"):
        assert once[f"{group}/smooth"] > 0
        assert thrice[f"{group}/smooth"] == pytest.approx(3 * once[f"{group}/smooth"])
        assert once[f"{group}/bbox"] == without[f"{group}/bbox"]
