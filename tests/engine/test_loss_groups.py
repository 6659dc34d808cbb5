"""The log sums losses by group, those of a user's own distillation loss included."""

import pytest
import torch
from detectron2.utils.events import EventStorage

from kddetr import KDDETR
from kddetr.engine.step import StepTrainer
from kddetr.engine.writers import loss_group
from kddetr.errors import UsageError
from kddetr.points import GeneralSampler
from tests.tiny import tiny_batch, tiny_detector


class OwnLoss:
    """A user's distillation loss: the names it returns, each with the same value."""

    def __init__(self, *names: str):
        self.names = names

    def __call__(self, student, teacher, points):
        gap = (student.logits - teacher.logits).abs().mean()
        return dict.fromkeys(self.names, gap)


def distiller(*names: str) -> KDDETR:
    return KDDETR(
        student=tiny_detector(seed=1),
        teacher=tiny_detector(seed=2),
        sampler=GeneralSampler(count=4),
        loss=OwnLoss(*names),
        weight=2.0,
    )


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("loss_class", "detection"),
        ("kd_general/class", "kd_general"),
        ("kd/class", "kd"),
        ("a/b/c", "a"),
    ],
)
def test_the_group_of_a_loss_is_the_part_before_the_slash(name, group):
    assert loss_group(name) == group


def test_losses_of_a_users_own_distillation_loss_have_groups():
    model = distiller("class", "contrast", "shape/box")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    loader = iter(lambda: tiny_batch(), None)
    step = StepTrainer(model=model.train(), data_loader=loader, optimizer=optimizer, seed=0)
    with EventStorage(0) as storage:
        step.run_step()
    logged = {name: history.latest() for name, history in storage.histories().items()}
    gap = logged["kd/class"]
    assert gap > 0 and logged["kd/contrast"] == logged["shape/box"] == gap
    assert logged["losses/kd"] == pytest.approx(2 * gap)
    assert logged["losses/shape"] == pytest.approx(gap)
    groups = [value for name, value in logged.items() if name.startswith("losses/")]
    assert len(groups) == 3 and sum(groups) == pytest.approx(logged["total_loss"])


def test_a_name_of_the_student_is_refused():
    model = distiller("auxiliary/loss").train()
    losses = model.student.losses
    model.student.losses = lambda *args: {**losses(*args), "auxiliary/loss": torch.zeros(())}
    with pytest.raises(
        UsageError, match="returns 'auxiliary/loss', which is already the name of another loss"
    ):
        model(tiny_batch())
