"""A loss for which the student is asked once more, near the teacher's boxes."""

import pytest
import torch

from kddetr.baselines import AtMovedBoxes
from kddetr.losses import WeightedMeanLoss
from kddetr.points import AtAnswers
from tests.tiny import tiny_batch, tiny_detector, tiny_distiller

BATCH = tiny_batch(((40, 56), (40, 56)), boxes=(2, None))


def distilled(loss) -> dict:
    """The distillation losses of a step whose points are exactly at the teacher's boxes."""
    student, teacher = (tiny_detector("dab_deformable_detr", seed=seed) for seed in (0, 1))
    exact = AtAnswers(shift=0.0, scale=0.0)
    model = tiny_distiller(student, teacher, query_placement=exact, loss=loss)
    torch.manual_seed(7)
    return {name: x for name, x in model(BATCH).items() if name.startswith("kd_")}


def test_boxes_that_are_not_moved_give_the_loss_at_the_answers():
    expected = distilled(WeightedMeanLoss())
    found = distilled(AtMovedBoxes(WeightedMeanLoss(), shift=0.0, scale=0.0))
    torch.testing.assert_close(found, {f"{name}_moved": x for name, x in expected.items()})


def test_moved_boxes_give_another_loss_with_a_gradient():
    still = distilled(AtMovedBoxes(WeightedMeanLoss(), shift=0.0, scale=0.0))
    moved = distilled(AtMovedBoxes(WeightedMeanLoss()))
    assert all(x.requires_grad and not x.isclose(still[name]) for name, x in moved.items())
    with pytest.raises(ValueError, match="shift"):
        AtMovedBoxes(WeightedMeanLoss(), shift=-1.0)
