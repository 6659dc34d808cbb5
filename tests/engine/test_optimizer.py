"""Parameter groups and schedules."""

import pytest
import torch
from detectron2.solver import LRMultiplier
from torch import nn

from kddetr.engine import cosine_schedule, parameter_groups, step_schedule
from kddetr.engine.optimizer_state import apply_options, group_options


class Wrapped(nn.Module):
    def __init__(self):
        super().__init__()
        self.student = nn.ModuleDict(
            {
                "backbone": nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)),
                "backbone_proj": nn.Linear(4, 4),
                "head": nn.Linear(4, 2),
            }
        )
        self.student["again"] = self.student["head"]  # registered twice
        self.student["backbone"][0].bias.requires_grad_(False)


def test_every_trainable_parameter_once():
    model = Wrapped()
    groups = parameter_groups(
        model, 1.0, {"backbone": 0.1, "backbone_proj": 0.5}, weight_decay_norm=0.0
    )
    listed = [id(p) for group in groups for p in group["params"]]
    assert sorted(listed) == sorted({id(p) for p in model.parameters() if p.requires_grad})
    rate = {id(p): (g["lr"], g.get("weight_decay")) for g in groups for p in g["params"]}
    parts = model.student
    assert rate[id(parts["backbone"][0].weight)] == (0.1, None)
    assert rate[id(parts["backbone"][1].weight)] == (0.1, 0.0)
    assert rate[id(parts["backbone_proj"].weight)] == (0.5, None)  # the longest match wins
    assert rate[id(parts["head"].bias)] == (1.0, None)
    torch.optim.AdamW(groups)


def test_a_factor_for_no_parameter_is_refused():
    with pytest.raises(ValueError, match="backbon_"):
        parameter_groups(Wrapped(), 1.0, {"backbon_": 0.1})


def rates(schedule, max_iter: int) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = LRMultiplier(optimizer, schedule, max_iter)
    seen = []
    for _ in range(max_iter):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return seen


def test_the_rate_drops_at_fractions_of_the_run():
    assert rates(step_schedule(10, [0.7, 0.9]), 10) == pytest.approx([1] * 7 + [0.1] * 2 + [0.01])
    assert rates(step_schedule(2, [0.7, 0.9]), 2) == [1, 1]  # a run too short for its milestones
    warm = rates(step_schedule(10, [0.8], warmup_iters=4, warmup_factor=0.2), 10)
    assert warm == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1, 1, 1, 0.1, 0.1])
    with pytest.raises(ValueError, match="fractions"):
        step_schedule(10, [7])
    with pytest.raises(ValueError, match="milestones is not set: call set_iterations"):
        step_schedule(10, None)
    with pytest.raises(ValueError, match=r"warm-up of 10 .* between 0 and 9"):
        step_schedule(10, [0.5], warmup_iters=10)


def test_cosine():
    seen = rates(cosine_schedule(8, end_factor=0.1), 8)
    assert seen[0] == 1 and seen[4] == pytest.approx(0.55) and seen == sorted(seen, reverse=True)
    assert rates(cosine_schedule(8, warmup_iters=2, warmup_factor=0.5), 8)[0] == pytest.approx(0.5)


def test_a_fused_optimizer_goes_on_from_the_state_of_a_plain_one():
    """The plain one counts its steps on the CPU, the fused one where the parameter is."""
    torch.manual_seed(0)
    gradients = torch.randn(6, 5)

    def trained(*fused):
        parameter, state = nn.Parameter(torch.ones(5)), None
        for part, is_fused in zip(gradients.chunk(len(fused)), fused):
            optimizer = torch.optim.AdamW([parameter], lr=0.1, fused=is_fused)
            options = group_options(optimizer)
            if state:
                optimizer.load_state_dict(state)
                apply_options(optimizer, options)
            assert optimizer.param_groups[0]["fused"] == is_fused
            for parameter.grad in part:
                optimizer.step()
            state = optimizer.state_dict()
        return parameter.detach()

    plain = trained(False)
    for others in [(True,), (False, True), (True, False)]:
        torch.testing.assert_close(trained(*others), plain)


@pytest.mark.parametrize("option", ["fused", "capturable"])
def test_steps_are_counted_where_the_kernels_read_them(option):
    parameter = nn.Parameter(torch.ones(2, device="meta"))
    optimizer = torch.optim.AdamW([parameter])
    optimizer.state[parameter] = {"step": torch.tensor(3.0)}
    apply_options(optimizer, group_options(optimizer))
    assert optimizer.state[parameter]["step"].device.type == "cpu"
    apply_options(optimizer, [group_options(optimizer)[0] | {option: True}])
    assert optimizer.state[parameter]["step"].device.type == "meta"
