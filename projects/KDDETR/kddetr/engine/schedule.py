"""Learning-rate schedules: multipliers of the base rate, with milestones as fractions of the run.

A fraction stays right when ``train.max_iter`` is overridden; a milestone in iterations could be
after the end of a shorter run.
"""

from collections.abc import Sequence

from detectron2.solver.lr_scheduler import WarmupParamScheduler
from fvcore.common.param_scheduler import CosineParamScheduler, ParamScheduler

from ..ranges import not_negative, whole


class _Steps(ParamScheduler):
    def __init__(self, milestones: Sequence[float], gamma: float):
        self._milestones, self._gamma = tuple(milestones), gamma

    def __call__(self, where: float) -> float:
        # The tolerance makes iteration 7 of 10 reach the milestone 0.7 in spite of rounding.
        return self._gamma ** sum(where + self.WHERE_EPSILON >= start for start in self._milestones)


def step_schedule(
    max_iter: int,
    milestones: Sequence[float] | None = (0.8,),
    gamma: float = 0.1,
    warmup_iters: int = 0,
    warmup_factor: float = 0.001,
) -> ParamScheduler:
    """A rate that is multiplied by ``gamma`` at each milestone.

    Args:
        max_iter: length of the run, in iterations.
        milestones: increasing fractions of the run in (0, 1); 40/50 is a drop after 40 of 50
            epochs. None stands for a value that is not set, which is refused.
        gamma: factor at each milestone.
        warmup_iters: iterations of linear warm-up; 0: none.
        warmup_factor: factor on the rate at the first iteration of the warm-up.

    Raises:
        ValueError: milestones are not set or not increasing fractions, or the warm-up is as long as
            the run.
    """
    if milestones is None:
        raise ValueError(
            "milestones is not set: call set_iterations (coco_iterations.py) or set"
            " lr_multiplier.milestones=[0.8]."
        )
    not_negative(gamma=gamma)
    milestones = list(milestones)
    if milestones != sorted(set(milestones)) or not all(0 < m < 1 for m in milestones):
        raise ValueError(
            "milestones must be increasing fractions of the run between 0 and 1, not"
            f" {milestones}; e.g. [0.8] instead of [72000] of 90000 iterations."
        )
    return _warmed_up(_Steps(milestones, gamma), max_iter, warmup_iters, warmup_factor)


def cosine_schedule(
    max_iter: int, end_factor: float = 0.0, warmup_iters: int = 0, warmup_factor: float = 0.001
) -> ParamScheduler:
    """A rate that falls along half a cosine to ``end_factor`` times the base rate.

    Args:
        max_iter: length of the run, in iterations.
        end_factor: factor on the rate at the end, at least 0.
        warmup_iters: iterations of linear warm-up; 0: none.
        warmup_factor: factor on the rate at the first iteration of the warm-up.

    Raises:
        ValueError: the warm-up is as long as the run.
    """
    not_negative(end_factor=end_factor)
    schedule = CosineParamScheduler(1.0, end_factor)
    return _warmed_up(schedule, max_iter, warmup_iters, warmup_factor)


def _warmed_up(
    schedule: ParamScheduler, max_iter: int, iters: int, factor: float
) -> ParamScheduler:
    whole(1, max_iter=max_iter)
    whole(0, warmup_iters=iters)
    not_negative(warmup_factor=factor)
    if iters == 0:
        return schedule
    if not 0 < iters < max_iter:
        raise ValueError(
            f"A warm-up of {iters} iterations does not fit into a run of {max_iter}: set"
            f" lr_multiplier.warmup_iters between 0 and {max_iter - 1}."
        )
    return WarmupParamScheduler(schedule, factor, iters / max_iter)
