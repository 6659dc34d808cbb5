"""A distillation weight that follows a schedule, and what happens where it is 0."""

import pytest
import torch
from fvcore.common.param_scheduler import LinearParamScheduler

from kddetr.engine import build, load_config, step_schedule
from kddetr.engine.optimizer import parameter_groups
from kddetr.engine.step import StepTrainer
from kddetr.engine.weight_schedule import WEIGHT, WeightScheduleHook
from kddetr.errors import UsageError
from tests.tiny import assert_same_tensors, tiny_batch, tiny_detector, tiny_distiller

STEPS = 4


def schedule(where: float) -> float:
    """The weight falls and stops after half of the training."""
    return step_schedule(STEPS, [0.25, 0.5], 0.0)(where) if where >= 0.5 else 1 - where


def distiller(**options):
    """A student that is narrower than its teacher, so that there is a projection."""
    student, teacher = tiny_detector("dino"), tiny_detector("dino", seed=1, embed_dim=32)
    return tiny_distiller(student, teacher, **options)


def trained(model, steps=range(STEPS), *, accumulate: int = 1) -> list[dict[str, float]]:
    """Train with weight decay and momentum; returns the losses of each step."""
    optimizer = torch.optim.AdamW(parameter_groups(model, 1e-3), lr=1e-3, weight_decay=0.5)
    trainer = StepTrainer(
        model=model,
        data_loader=iter(lambda: tiny_batch(), None),
        optimizer=optimizer,
        seed=0,
        accumulate=accumulate,
    )
    hook = WeightScheduleHook(model, STEPS)
    trainer.register_hooks([hook] if model.weight_schedule else [])
    logged = []
    step = trainer.run_step

    def run_step():
        step()
        logged.append({n: h.latest() for n, h in trainer.storage.histories().items()})

    trainer.run_step = run_step
    trainer.train(steps.start, steps.stop)
    logged.append({WEIGHT: trainer.storage.histories().get(WEIGHT)})
    return logged


def test_the_weight_follows_the_schedule():
    model, constant = distiller(weight=2.0, weight_schedule=LinearParamScheduler(1, 0)), distiller()
    model.progress = 0.25
    assert (model.weight, model.current_weight) == (2, 1.5)
    batch = tiny_batch()
    torch.manual_seed(0)
    found = model(batch)
    torch.manual_seed(0)
    for name, value in constant(batch).items():
        factor = 1.5 if name.startswith("kd_") else 1.0
        torch.testing.assert_close(found[name], factor * value)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_after_its_end_a_step_is_that_of_the_plain_student(accumulate):
    """Nothing asks the teacher, and the projection stays, without weight decay or momentum."""
    model = distiller(weight_schedule=schedule)
    logged = trained(model, range(2), accumulate=accumulate)
    assert [any(n.startswith("kd_") for n in step) for step in logged[:2]] == [True, True]
    model.teacher.encode = lambda inputs: pytest.fail("asked the teacher")
    before = {n: x.clone() for n, x in model.projection.state_dict().items()}
    plain = tiny_distiller(tiny_detector("dino"), tiny_detector("dino", seed=1), weight=0.0)
    plain.student.load_state_dict(model.student.state_dict())
    logged = trained(model, range(2, STEPS), accumulate=accumulate)
    assert logged[-1][WEIGHT].latest() == 0
    trained(plain, range(2, STEPS), accumulate=accumulate)
    assert_same_tensors(model.student.state_dict(), plain.student.state_dict())
    assert_same_tensors(model.projection.state_dict(), before)


def test_every_parameter_has_a_gradient_where_the_weight_is_zero():
    """DistributedDataParallel waits for one of each."""
    model = distiller(weight_schedule=lambda where: 0.0)
    sum(model(tiny_batch()).values()).backward()
    assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
    assert {id(p) for p in model.idle_parameters()} == {
        id(p) for p in model.projection.parameters()
    }
    assert all(not p.grad.any() for p in model.idle_parameters())
    assert distiller(weight=0.0).idle_parameters() == []  # it has no projection
    model = distiller(weight=0.0)
    model.loss.learned = torch.nn.Linear(2, 2)
    sum(model(tiny_batch()).values()).backward()
    assert all(p.grad is not None for p in model.loss.parameters())


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf")])
def test_a_schedule_of_other_numbers_is_refused(value):
    model = distiller(weight_schedule=lambda where: value)
    with pytest.raises(UsageError, match="weight_schedule gives"):
        model(tiny_batch())


def test_a_schedule_is_named_in_a_config_or_on_the_command_line():
    name = "configs/quickstart/distilled.py"
    target = "fvcore.common.param_scheduler.LinearParamScheduler"
    override = f"+model.weight_schedule={{_target_: {target}, start_value: 1, end_value: 0}}"
    schedule = build(load_config(name, [override]).model.weight_schedule)
    assert isinstance(schedule, LinearParamScheduler) and schedule(0.25) == 0.75
