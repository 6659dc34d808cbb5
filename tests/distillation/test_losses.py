"""Properties of the distillation loss beside its golden numbers."""

import pytest
import torch
from torch.nn import functional as F

from kddetr.losses import (
    DistillationLoss,
    bce_gap,
    giou_gap,
    kl_background_gap,
    kl_gap,
    l1_gap,
)
from kddetr.structures import Predictions, Queries, UsageError


def predictions(layers, images=2, points=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(layers, images, points, 4, generator=generator) * 3
    boxes = 0.2 + 0.6 * torch.rand(layers, images, points, 4, generator=generator)
    return Predictions(logits, boxes)


def asked(images=2, points=5, name="general"):
    return Queries(torch.rand(images, points, 4)).named(name)


def total(loss, student, teacher, points):
    return float(sum(loss(student, teacher, points).values()))


def test_gaps_vanish_only_between_equals():
    a, b = predictions(1), predictions(1, seed=1)
    for gap, field in (
        (lambda s, t: kl_gap(s, t, temperature=10.0), "logits"),
        (l1_gap, "boxes"),
        (giou_gap, "boxes"),
    ):
        mine, other = getattr(a, field), getattr(b, field)
        assert gap(mine, mine).abs().max() < 1e-4
        assert (gap(mine, other) > 0).all()


@pytest.mark.parametrize("term", ["class", "bbox", "giou"])
def test_the_default_reduction_does_not_grow_with_the_batch(term):
    """The same images twice: the same loss. In the published reduction the class term doubles."""
    student, teacher = predictions(2), predictions(3, seed=1)

    def ratio(reduction):
        loss = DistillationLoss(reduction=reduction)
        once = loss(student, teacher, asked())
        twice = loss(*(_twice(p) for p in (student, teacher)), asked(images=4))
        return float(twice[f"kd_general/{term}"] / once[f"kd_general/{term}"])

    assert ratio("weighted_mean") == pytest.approx(1, rel=1e-5)
    assert ratio("published") == pytest.approx(2 if term == "class" else 1, rel=1e-5)


def _twice(p):
    return Predictions(torch.cat([p.logits] * 2, dim=1), torch.cat([p.boxes] * 2, dim=1))


def test_points_the_teacher_sees_nothing_at_weigh_nothing():
    student, teacher = predictions(1), predictions(1, seed=1)
    teacher.logits[:, :, 1:] = -40.0
    only = Predictions(student.logits[:, :, :1], student.boxes[:, :, :1])
    wanted = Predictions(teacher.logits[:, :, :1], teacher.boxes[:, :, :1])
    loss = DistillationLoss()
    assert total(loss, student, teacher, asked()) == pytest.approx(
        total(loss, only, wanted, asked(points=1)), rel=1e-5
    )
    assert total(DistillationLoss(foreground=False), student, teacher, asked()) != pytest.approx(
        total(loss, student, teacher, asked()), rel=1e-2
    )


def test_every_student_layer_is_compared_with_the_teachers_last():
    student, teacher = predictions(3), predictions(4, seed=1)
    loss = DistillationLoss()
    one = Predictions(student.logits[1:2], student.boxes[1:2])
    for term, values in loss.terms(student, teacher).items():
        assert values.shape == (3,)
        torch.testing.assert_close(values[1:2], loss.terms(one, teacher.last())[term])


def test_no_gradient_reaches_the_teacher():
    student, teacher = predictions(2), predictions(2, seed=1)
    for tensor in (student.logits, student.boxes, teacher.logits, teacher.boxes):
        tensor.requires_grad_()
    sum(DistillationLoss()(student, teacher, asked()).values()).backward()
    assert student.logits.grad is not None and student.boxes.grad is not None
    assert teacher.logits.grad is None and teacher.boxes.grad is None


def test_an_unknown_reduction_is_refused():
    with pytest.raises(ValueError, match="weighted_mean, published"):
        DistillationLoss(reduction="sum")


def test_the_weights_go_with_the_reduction():
    assert DistillationLoss().weights == {"class": 10.0, "bbox": 5.0, "giou": 2.0}
    published = DistillationLoss(reduction="published")
    assert published.weights == {"class": 1.0, "bbox": 5.0, "giou": 2.0}
    assert DistillationLoss(class_weight=3.0).weights["class"] == 3.0


def test_a_teacher_that_sees_nothing_anywhere_gives_a_number():
    student, teacher = predictions(1), predictions(1, seed=1)
    teacher.logits.fill_(-200.0)
    for value in DistillationLoss()(student, teacher, asked()).values():
        assert torch.isfinite(value)


@pytest.mark.parametrize("gap", [kl_gap, kl_background_gap, bce_gap])
@pytest.mark.parametrize("temperature", [1.0, 10.0])
def test_a_class_gap_is_zero_at_the_teachers_answer_alone(gap, temperature):
    generator = torch.Generator().manual_seed(0)
    teacher = torch.randn(1, 2, 5, 4, generator=generator) * 3
    student = (teacher + 0.1 * torch.randn(2, 2, 5, 4, generator=generator)).requires_grad_()
    same = gap(teacher.expand(2, -1, -1, -1), teacher, temperature=temperature)
    torch.testing.assert_close(same, torch.zeros(2, 2, 5), atol=1e-4, rtol=0)
    found = gap(student, teacher, temperature=temperature)
    assert found.shape == (2, 2, 5) and (found > 0).all()
    found.sum().backward()
    nearer = student.detach() - 0.1 * student.grad / student.grad.abs().max()
    assert gap(nearer, teacher, temperature=temperature).sum() < found.sum()


def test_bce_gap_is_the_binary_cross_entropy_up_to_the_teachers_own():
    student, teacher = (
        torch.randn(1, 1, 6, 3, generator=torch.Generator().manual_seed(i), requires_grad=not i)
        for i in range(2)
    )
    found = bce_gap(student, teacher, temperature=1.0).sum()
    plain = F.binary_cross_entropy_with_logits(student, teacher.sigmoid(), reduction="sum") / 3
    (mine,), (theirs,) = (torch.autograd.grad(v, student) for v in (found, plain))
    torch.testing.assert_close(mine, theirs)


def test_one_class_has_no_distribution_to_compare():
    """A softmax over one class is 1 whatever is said: the published KL would be silently 0."""
    one = Predictions(torch.randn(2, 2, 5, 1), torch.rand(2, 2, 5, 4) * 0.5 + 0.2)
    other = Predictions(one.logits + 1, one.boxes)
    with pytest.raises(UsageError, match="class_gap to kl_background or bce"):
        DistillationLoss()(one, other, asked())
    for gap in ("kl_background", "bce"):
        assert DistillationLoss(class_gap=gap)(one, other, asked())["kd_general/class"] > 0
    boxes_alone = DistillationLoss(class_weight=0.0)(one, other, asked())
    assert boxes_alone["kd_general/class"] == 0


def test_unknown_class_gap():
    with pytest.raises(ValueError, match="one of kl, kl_background, bce"):
        DistillationLoss(class_gap="mse")
