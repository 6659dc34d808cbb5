"""Losses made of losses: layer by layer, by group, sums; and the mean of each image."""

from typing import ClassVar

import pytest
import torch

from kddetr.errors import UsageError
from kddetr.losses import (
    ByGroup,
    EqualWeight,
    ForegroundWeight,
    L1Loss,
    LayerByLayer,
    PerImageLoss,
    SumOfLosses,
    WeightedMeanLoss,
)
from kddetr.predictions import LAST, Predictions
from kddetr.structures import Queries, compared_layers
from tests.tiny import tiny_batch, tiny_detector, tiny_distiller

POINTS = Queries(torch.rand(2, 5, 4), groups={"general": 3, "specific": 2})


def predictions(layers, seed=0, **options):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(layers, 2, 5, 4, generator=generator)
    return Predictions(logits, torch.rand(layers, 2, 5, 4, generator=generator), **options)


def test_the_mean_of_each_image_is_its_formula():
    """sum over the points of w * value / sum of w, in each image, then the mean of the images."""
    student, teacher = predictions(3, seed=1), predictions(1)
    found = PerImageLoss()(student, teacher, POINTS)["kd_general/bbox"]
    weights = ForegroundWeight()(teacher)[:, :3]
    values = L1Loss()(student, teacher)[:, :, :3]
    expected = sum(
        (weights[i] * values[layer, i]).sum() / weights[i].sum() / 2
        for layer in range(3)
        for i in range(2)
    )
    torch.testing.assert_close(found, 5.0 * expected)


def test_with_equal_weights_the_two_means_are_one():
    pair = predictions(3, seed=1), predictions(1)
    losses = (kind(weighting=EqualWeight()) for kind in (PerImageLoss, WeightedMeanLoss))
    found, expected = (loss(*pair, POINTS) for loss in losses)
    torch.testing.assert_close(found, expected)


def test_an_image_without_answers_is_not_in_the_mean_of_the_images():
    answered = torch.tensor([[1.0] * 5, [0.0] * 5])[None]
    student, teacher = predictions(3, seed=1), predictions(1, answered=answered)
    found = PerImageLoss()(student, teacher, POINTS)
    expected = PerImageLoss()(
        student.of_images([0]),
        teacher.of_images([0]),
        Queries(POINTS.boxes[:1], groups=POINTS.groups),
    )
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("ours", "theirs", "pairs"),
    [
        (2, 2, [(0, 0), (1, 1)]),
        (2, 3, [(0, 1), (1, 2)]),
        (3, 2, [(0, 0), (1, 0), (2, 1)]),
    ],
)
def test_layer_by_layer_counts_from_the_last_layer(ours, theirs, pairs):
    student, teacher = predictions(ours, seed=1), predictions(theirs)
    found = LayerByLayer(WeightedMeanLoss())(student, teacher, POINTS)
    one = [
        WeightedMeanLoss()(student.of_layers([i]), teacher.of_layers([k]), POINTS) for i, k in pairs
    ]
    torch.testing.assert_close(found, {name: sum(x[name] for x in one) for name in one[0]})


def test_every_group_has_the_loss_of_its_name():
    general, specific = WeightedMeanLoss(), PerImageLoss(box_losses=[L1Loss(weight=9.0)])
    pair = predictions(2, seed=1), predictions(2)
    found = ByGroup(general=general, specific=specific)(*pair, POINTS)
    expected = {
        **{n: v for n, v in general(*pair, POINTS).items() if n.startswith("kd_general")},
        **{n: v for n, v in specific(*pair, POINTS).items() if n.startswith("kd_specific")},
    }
    assert found.keys() == expected.keys()
    torch.testing.assert_close(found, expected)
    with pytest.raises(UsageError, match="losses for the groups general, and the points are in"):
        ByGroup(general=general)(*pair, POINTS)


def test_a_sum_of_losses_has_the_losses_of_all():
    pair = predictions(2, seed=1), predictions(2)

    def other(student, teacher, points):
        return {"kd_other/x": student.boxes.sum()}

    found = SumOfLosses([WeightedMeanLoss(), other])(*pair, POINTS)
    assert found == WeightedMeanLoss()(*pair, POINTS) | other(*pair, POINTS)
    with pytest.raises(UsageError, match="Two losses of a SumOfLosses return kd_other/x"):
        SumOfLosses([other, other])(*pair, POINTS)


def test_losses_of_two_groups_may_not_have_one_name():
    def same(student, teacher, points):
        return {"kd_other/x": student.boxes.sum()}

    with pytest.raises(UsageError, match="Two losses of a ByGroup return kd_other/x"):
        ByGroup(general=same, specific=same)(predictions(2, seed=1), predictions(2), POINTS)


def both(*losses):
    """The two ways to put two losses together."""
    return SumOfLosses(losses), ByGroup(**dict(zip(("general", "specific"), losses, strict=True)))


def test_losses_say_together_which_layers_they_compare_where_they_agree():
    last, every = WeightedMeanLoss(student_layers="last"), WeightedMeanLoss()
    for loss in both(last, last):
        assert compared_layers(loss) == (LAST, LAST)
    for loss in both(last, every):
        assert compared_layers(loss) == (None, LAST)
    for loss in both(last, LayerByLayer(every)):
        assert compared_layers(loss) == (None, None)

    class Listed:
        student_layers: ClassVar = [-1]

    assert compared_layers(last, Listed()) == (LAST, None)
    assert compared_layers(lambda *_: {}) == (None, None)


def test_the_distiller_decodes_only_the_layers_that_all_losses_of_a_sum_compare():
    kept = []

    def keeping(student, teacher, points):
        kept.append((student.num_layers, teacher.num_layers))
        return {"kd_kept/x": student.boxes.sum()}

    keeping.student_layers = keeping.teacher_layers = LAST
    for layers in ("last", "all"):
        loss = SumOfLosses([WeightedMeanLoss(student_layers=layers), keeping])
        student, teacher = tiny_detector(), tiny_detector(seed=1)
        tiny_distiller(student, teacher, loss=loss)(tiny_batch())
    assert kept[0] == (1, 1) and kept[1] == (2, 1)


@pytest.mark.parametrize("make", [lambda: ByGroup(), lambda: SumOfLosses([])])
def test_no_loss_at_all_is_refused(make):
    with pytest.raises(ValueError, match=r"needs a loss|at least one loss"):
        make()
