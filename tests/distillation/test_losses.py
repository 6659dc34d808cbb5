"""Properties of the distillation losses; their numbers are compared in tests/golden_numbers."""

import pytest
import torch
from torch.nn import functional as F

from kddetr.errors import UsageError
from kddetr.losses import (
    BinaryCrossEntropy,
    EqualWeight,
    ForegroundWeight,
    GIoULoss,
    KLDivergence,
    KLWithBackground,
    L1Loss,
    PublishedLoss,
    WeightedMeanLoss,
)
from kddetr.structures import Predictions, Queries

CLASS_LOSSES = [KLDivergence, KLWithBackground, BinaryCrossEntropy]


def predictions(layers, images=2, points=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(layers, images, points, 4, generator=generator) * 3
    boxes = 0.2 + 0.6 * torch.rand(layers, images, points, 4, generator=generator)
    return Predictions(logits, boxes)


def asked(images=2, points=5, name="general"):
    return Queries(torch.rand(images, points, 4)).named(name)


def total(loss, student, teacher, points):
    return float(sum(loss(student, teacher, points).values()))


def of_logits(logits):
    return Predictions(logits, torch.full((*logits.shape[:3], 4), 0.5))


@pytest.mark.parametrize("kind", [*CLASS_LOSSES, L1Loss, GIoULoss])
def test_a_term_is_zero_only_for_equal_predictions(kind):
    a, b = predictions(1), predictions(1, seed=1)
    assert kind()(a, a).abs().max() < 1e-4
    assert (kind()(a, b) > 0).all()


@pytest.mark.parametrize("term", ["class", "bbox", "giou"])
def test_the_default_reduction_does_not_grow_with_the_batch(term):
    """A batch with every image twice has the same loss, except for the published class term."""
    student, teacher = predictions(2), predictions(3, seed=1)

    def ratio(loss):
        once = loss(student, teacher, asked())
        twice = loss(*(_twice(p) for p in (student, teacher)), asked(images=4))
        return float(twice[f"kd_general/{term}"] / once[f"kd_general/{term}"])

    assert ratio(WeightedMeanLoss()) == pytest.approx(1, rel=1e-5)
    assert ratio(PublishedLoss()) == pytest.approx(2 if term == "class" else 1, rel=1e-5)


def _twice(p):
    return Predictions(torch.cat([p.logits] * 2, dim=1), torch.cat([p.boxes] * 2, dim=1))


def test_points_where_the_teacher_predicts_background_have_no_weight():
    student, teacher = predictions(1), predictions(1, seed=1)
    teacher.logits[:, :, 1:] = -40.0
    only = Predictions(student.logits[:, :, :1], student.boxes[:, :, :1])
    wanted = Predictions(teacher.logits[:, :, :1], teacher.boxes[:, :, :1])
    loss = WeightedMeanLoss()
    assert total(loss, student, teacher, asked()) == pytest.approx(
        total(loss, only, wanted, asked(points=1)), rel=1e-5
    )
    equal = WeightedMeanLoss(weighting=EqualWeight())
    assert total(equal, student, teacher, asked()) != pytest.approx(
        total(loss, student, teacher, asked()), rel=1e-2
    )


def test_every_student_layer_is_compared_with_the_teachers_last():
    student, teacher = predictions(3), predictions(4, seed=1)
    loss = WeightedMeanLoss()
    layers = [Predictions(student.logits[i : i + 1], student.boxes[i : i + 1]) for i in range(3)]
    alone = [loss(layer, teacher.last(), asked()) for layer in layers]
    for name, value in loss(student, teacher, asked()).items():
        torch.testing.assert_close(value, sum(losses[name] for losses in alone))


@pytest.mark.parametrize(
    ("chosen", "indices"), [("last", [3]), ([0, 2], [0, 2]), ([-1, 1], [1, 3])]
)
def test_only_the_chosen_student_layers_are_compared(chosen, indices):
    student, teacher, points = predictions(4), predictions(1, seed=1), asked()
    loss = WeightedMeanLoss(student_layers=chosen)
    parts = [Predictions(student.logits[[i]], student.boxes[[i]]) for i in indices]
    expected = sum(total(WeightedMeanLoss(), part, teacher, points) for part in parts)
    assert total(loss, student, teacher, points) == pytest.approx(expected, rel=1e-5)
    already = student.of_layers(loss.student_layers)
    assert total(loss, already, teacher, points) == pytest.approx(expected, rel=1e-5)


def test_a_forward_of_ones_own_gets_all_layers_of_the_teacher_unless_its_class_says_which():
    class Forward:
        def forward(self, student, teacher, points):
            return {}

    class Mixed(Forward, WeightedMeanLoss): ...

    class Own(PublishedLoss):
        forward = Forward.forward

    class Derived(Own): ...

    class Says(Own):
        teacher_layers = (0,)

    class Other(PublishedLoss): ...

    found = [kind().teacher_layers for kind in (Mixed, Own, Derived, Says, Other)]
    assert found == [None, None, None, (0,), (-1,)]


def test_all_student_layers_are_compared_by_default():
    assert WeightedMeanLoss().student_layers is PublishedLoss(student_layers="all").student_layers


def test_student_layers_that_there_cannot_be_are_refused():
    for wrong in ("first", "", 2, [], [1, 1], [0.5], [True], None, ["last"]):
        with pytest.raises(ValueError, match="student_layers must be"):
            WeightedMeanLoss(student_layers=wrong)
    with pytest.raises(UsageError, match="wanted of a detector with 4"):
        WeightedMeanLoss(student_layers=[4])(predictions(4), predictions(1), asked())


def test_no_gradient_reaches_the_teacher():
    student, teacher = predictions(2), predictions(2, seed=1)
    for tensor in (student.logits, student.boxes, teacher.logits, teacher.boxes):
        tensor.requires_grad_()
    sum(WeightedMeanLoss()(student, teacher, asked()).values()).backward()
    assert student.logits.grad is not None and student.boxes.grad is not None
    assert teacher.logits.grad is None and teacher.boxes.grad is None


def test_the_default_weights_depend_on_the_reduction():
    def weights(loss):
        return {term.name: term.weight for term in (loss.class_loss, *loss.box_losses)}

    assert weights(WeightedMeanLoss()) == {"class": 10.0, "bbox": 5.0, "giou": 2.0}
    assert weights(PublishedLoss()) == {"class": 1.0, "bbox": 5.0, "giou": 2.0}


def test_given_terms_replace_the_defaults():
    student, teacher = predictions(1), predictions(1, seed=1)
    loss = WeightedMeanLoss(box_losses=[])
    assert list(loss(student, teacher, asked())) == ["kd_general/class"]
    half = WeightedMeanLoss(class_loss=KLDivergence(weight=5.0), box_losses=[])
    both = (one(student, teacher, asked())["kd_general/class"] for one in (loss, half))
    assert next(both) == pytest.approx(2 * float(next(both)))


class CentreDistance:
    """A term of one's own: a name, a weight, and a value for each layer, image and point."""

    name, weight = "centre", 3.0

    def __call__(self, student, teacher):
        return (student.boxes[..., :2] - teacher.boxes[..., :2]).norm(dim=-1)


@pytest.mark.parametrize("loss", [WeightedMeanLoss, PublishedLoss])
def test_a_term_of_ones_own_is_weighted_like_the_others(loss):
    student, teacher = predictions(2), predictions(3, seed=1)
    found = loss(box_losses=[CentreDistance()])(student, teacher, asked())
    assert list(found) == ["kd_general/class", "kd_general/centre"]
    weight = ForegroundWeight()(teacher.last())
    distance = CentreDistance()(student, teacher.last())
    expected = 3.0 * ((distance * weight).sum((1, 2)) / weight.sum()).sum()
    torch.testing.assert_close(found["kd_general/centre"], expected)
    plain = loss()(student, teacher, asked())
    torch.testing.assert_close(found["kd_general/class"], plain["kd_general/class"])


def test_an_own_class_loss_and_weighting_take_the_place_of_the_defaults():
    class Distance(CentreDistance):
        name = "class"

    student, teacher = predictions(1), predictions(1, seed=1)
    loss = WeightedMeanLoss(class_loss=Distance(), box_losses=[], weighting=EqualWeight())
    expected = 3.0 * CentreDistance()(student, teacher).mean()
    torch.testing.assert_close(loss(student, teacher, asked()), {"kd_general/class": expected})


def test_a_teacher_that_predicts_background_everywhere_gives_a_finite_loss():
    student, teacher = predictions(1), predictions(1, seed=1)
    teacher.logits.fill_(-200.0)
    for value in WeightedMeanLoss()(student, teacher, asked()).values():
        assert torch.isfinite(value)


@pytest.mark.parametrize("kind", CLASS_LOSSES)
@pytest.mark.parametrize("temperature", [1.0, 10.0])
def test_a_class_loss_is_smallest_at_the_teachers_prediction(kind, temperature):
    generator = torch.Generator().manual_seed(0)
    teacher = torch.randn(1, 2, 5, 4, generator=generator) * 3
    student = (teacher + 0.1 * torch.randn(2, 2, 5, 4, generator=generator)).requires_grad_()
    term = kind(temperature=temperature)

    def value(logits):
        return term(of_logits(logits), of_logits(teacher))

    same = value(teacher.expand(2, -1, -1, -1))
    torch.testing.assert_close(same, torch.zeros(2, 2, 5), atol=1e-4, rtol=0)
    found = value(student)
    assert found.shape == (2, 2, 5) and (found > 0).all()
    found.sum().backward()
    nearer = student.detach() - 0.1 * student.grad / student.grad.abs().max()
    assert value(nearer).sum() < found.sum()


def test_binary_cross_entropy_has_the_gradient_of_the_plain_one():
    student, teacher = (
        torch.randn(1, 1, 6, 3, generator=torch.Generator().manual_seed(i), requires_grad=not i)
        for i in range(2)
    )
    term = BinaryCrossEntropy(temperature=1.0)
    found = term(of_logits(student), of_logits(teacher)).sum()
    plain = F.binary_cross_entropy_with_logits(student, teacher.sigmoid(), reduction="sum") / 3
    (mine,), (theirs,) = (torch.autograd.grad(v, student) for v in (found, plain))
    torch.testing.assert_close(mine, theirs)


def test_the_kl_of_a_single_class_is_refused():
    """A softmax over one class is always 1, so the published KL would silently be 0."""
    one = Predictions(torch.randn(2, 2, 5, 1), torch.rand(2, 2, 5, 4) * 0.5 + 0.2)
    other = Predictions(one.logits + 1, one.boxes)
    with pytest.raises(UsageError, match="KLWithBackground or kddetr"):
        WeightedMeanLoss()(one, other, asked())
    for kind in (KLWithBackground, BinaryCrossEntropy):
        assert WeightedMeanLoss(class_loss=kind())(one, other, asked())["kd_general/class"] > 0
    boxes_only = WeightedMeanLoss(class_loss=KLDivergence(weight=0.0))(one, other, asked())
    assert boxes_only["kd_general/class"] == 0


def test_two_terms_of_one_name_are_refused():
    with pytest.raises(ValueError, match="different names, not class, bbox, bbox"):
        WeightedMeanLoss(box_losses=[L1Loss(), L1Loss(weight=2.0)])


@pytest.mark.parametrize(("name", "weight"), [(None, 1.0), (3, 1.0), ("mine", None), ("mine", "1")])
def test_a_term_without_a_name_or_a_weight_is_refused(name, weight):
    term = L1Loss()
    term.name, term.weight = name, weight
    with pytest.raises(ValueError, match="a name and a weight, a text and a number"):
        WeightedMeanLoss(box_losses=[term])


def test_a_student_with_a_box_for_every_class_is_compared_at_the_teachers_class():
    """The student's own most likely class may be another one."""
    torch.manual_seed(0)
    logits = torch.randn(1, 2, 6, 3)
    per_class = torch.rand(1, 2, 6, 3, 4) * 0.5 + 0.2
    teacher = Predictions(torch.randn(2, 2, 6, 3), torch.rand(2, 2, 6, 4) * 0.5 + 0.2)
    top = teacher.logits[-1].argmax(-1)
    wanted = per_class[0].gather(2, top[..., None, None].expand(-1, -1, 1, 4))[:, :, 0]
    loss, points = WeightedMeanLoss(), asked(points=6)
    found = loss(Predictions(logits, per_class[..., 0, :], per_class), teacher, points)
    expected = loss(Predictions(logits, wanted[None]), teacher, points)
    torch.testing.assert_close(found, expected)
    other = loss(Predictions(logits, per_class[..., 0, :]), teacher, points)
    assert other["kd_general/bbox"] != pytest.approx(float(expected["kd_general/bbox"]), rel=1e-3)


def test_the_kl_over_a_softmax_with_background():
    """Logits relative to background change nothing in the published KL, which leaves it out."""
    scores = torch.randn(1, 2, 5, 4, generator=torch.Generator().manual_seed(0))
    teacher = of_logits(torch.randn(1, 2, 5, 3, generator=torch.Generator().manual_seed(1)))
    relative = of_logits(scores[..., :-1] - scores[..., -1:])
    published = KLDivergence()
    torch.testing.assert_close(
        published(relative, teacher), published(of_logits(scores[..., :-1]), teacher)
    )
    found = KLWithBackground(temperature=1.0)(relative, teacher)
    p, q = F.pad(teacher.logits, (0, 1)).softmax(-1), scores.softmax(-1)
    torch.testing.assert_close(found, (p * (p / q).log()).mean(-1))
