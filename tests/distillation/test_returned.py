"""What a sampler, a query placement, a loss or a term of one's own may return, and what is refused
with a sentence that names it.
"""

import numpy as np
import pytest
import torch
from detectron2.utils.events import EventStorage
from torch import nn

from kddetr.errors import UsageError
from kddetr.losses import L1Loss, WeightedMeanLoss
from kddetr.points import JointSampler, SpecificSampler
from kddetr.structures import Predictions, Queries
from kddetr.teachers import CachedEncoder, Vocabulary
from tests.tiny import tiny_batch, tiny_detector, tiny_distiller


class Mine:
    """A part that returns what it is told, made from its own arguments."""

    name, weight = "mine", 1.0

    def __init__(self, make):
        self.make = make

    def __call__(self, *arguments):
        return self.make(*arguments)


def distiller(loss=None, **parts):
    parts = {name: Mine(make) for name, make in parts.items()}
    if loss is not None:
        parts["loss"] = Mine(loss)
    return tiny_distiller(tiny_detector(seed=1), tiny_detector(seed=2), **parts)


def gap(student):
    return student.boxes.square().mean()


RETURNED = {
    "None": (lambda s: None, "Mine returned None instead of its losses"),
    "tensor": (lambda s: gap(s), r"Mine returned a Tensor of shape \(\) instead of its losses"),
    "tuple": (lambda s: (gap(s), {}), "Mine returned a tuple instead of its losses"),
    "vector": (
        lambda s: {"my/box": s.boxes.mean((0, 1, 2))},
        r"Mine returned a Tensor of shape \(4,\) as the loss 'my/box'",
    ),
    "one element": (lambda s: {"my/box": gap(s)[None]}, r"shape \(1,\) as the loss 'my/box'"),
    "no value": (lambda s: {"my/box": None}, "returned None as the loss 'my/box'"),
    "text": (lambda s: {"my/box": "low"}, "returned 'low' as the loss 'my/box'"),
    "a dictionary inside": (lambda s: {"my": {"box": gap(s)}}, "a dict as the loss 'my'"),
    "True": (lambda s: {"my/box": True}, "returned True as the loss 'my/box'"),
    "a name": (lambda s: {3: gap(s)}, "a loss under the name 3: names must be text"),
    "for the log": (
        lambda s: {"kd/box": gap(s), "my/agreement": torch.tensor(0.7)},
        r"'my/agreement' without a gradient.*put_scalar\('my/agreement', value\)",
    ),
    "detached": (lambda s: {"my/box": gap(s).detach()}, "'my/box' without a gradient"),
    "a number": (lambda s: {"my/box": 0.7}, "'my/box' without a gradient"),
    "NaN": (lambda s: {"my/box": torch.tensor(float("nan"))}, "'my/box' without a gradient"),
}


@pytest.mark.parametrize("case", RETURNED)
def test_what_is_no_loss_is_refused_by_its_name(case):
    make, sentence = RETURNED[case]
    with pytest.raises(UsageError, match=sentence):
        distiller(loss=lambda student, *_: make(student))(tiny_batch())


@pytest.mark.parametrize("zero", [0, 0.0, torch.zeros(()), torch.zeros((), dtype=torch.int64)])
def test_a_loss_of_no_points_may_be_a_constant_zero(zero):
    losses = distiller(loss=lambda *_: {"mine": zero, "other": zero})(tiny_batch())
    assert losses["kd/mine"].item() == losses["kd/other"].item() == 0
    sum(losses.values()).backward()


def test_without_gradients_every_loss_is_a_constant_and_legal():
    """Such as the losses of a validation batch."""
    model = distiller(loss=lambda student, *_: {"mine": gap(student)})
    with torch.no_grad():
        assert model(tiny_batch())["kd/mine"] > 0


def test_a_logged_value_is_in_the_log_and_not_in_the_loss():
    from detectron2.utils.events import get_event_storage

    def loss(student, teacher, points):
        get_event_storage().put_scalar("my/agreement", torch.tensor(0.7))
        return {"mine": gap(student)}

    with EventStorage(0) as storage:
        losses = distiller(loss=loss)(tiny_batch())
    assert [name for name in losses if "/" in name] == ["kd/mine"]
    assert storage.latest()["my/agreement"] == (pytest.approx(0.7), 0)


SAMPLED = {
    "pixels": (
        lambda t, s: t.make_queries(torch.rand(2, 5, 4) * 640).named("x"),
        r"Mine returned boxes with values up to .*look like pixels",
    ),
    "nan": (
        lambda t, s: t.make_queries(torch.full((2, 5, 4), torch.nan)).named("x"),
        "Mine returned boxes with values that are infinite or no numbers",
    ),
    "numpy": (
        lambda t, s: t.make_queries(np.zeros((2, 5, 4))).named("x"),
        "takes a tensor of boxes, not an ndarray",
    ),
    "three images": (
        lambda t, s: t.make_queries(torch.rand(3, 5, 4)).named("x"),
        r"got boxes of the shape \(3, 5, 4\), and there are 2 images",
    ),
    "None": (lambda t, s: None, "Mine returned None instead of Queries"),
    "boxes": (
        lambda t, s: torch.rand(2, 5, 4),
        r"a Tensor of shape \(2, 5, 4\) instead of Queries",
    ),
    "one image": (
        lambda t, s: Queries(torch.rand(1, 5, 4)).named("mine"),
        "Mine returned points for 1 images, and there are 2",
    ),
    "no box": (lambda t, s: t.make_queries(torch.rand(2, 5, 3)), r"must be \(B, N, 4\)"),
}


@pytest.mark.parametrize("case", SAMPLED)
def test_what_is_no_set_of_points_is_refused(case):
    make, sentence = SAMPLED[case]
    with pytest.raises(UsageError, match=sentence):
        distiller(sampler=make)(tiny_batch())


@pytest.mark.parametrize("shape", [(2, 5, 4), (1, 5, 4), (5, 4)])
def test_points_may_lie_a_little_outside_of_the_image(shape):
    boxes = torch.rand(shape) * 2.5 - 0.8
    losses = distiller(sampler=lambda t, s: t.make_queries(boxes).named("mine"))(tiny_batch())
    assert losses["kd_mine/bbox"].isfinite()


def test_no_points_give_no_distillation_loss():
    model = distiller(sampler=lambda t, s: t.make_queries(torch.rand(1, 0, 4)).named("mine"))
    losses = model(tiny_batch())
    assert losses["kd_mine/class"] == losses["kd_mine/bbox"] == 0
    sum(losses.values()).backward()


def test_points_of_several_samplers_have_to_fit_together():
    one = lambda t, s: Queries(torch.rand(1, 3, 4)).named("one")  # noqa: E731
    for samplers, sentence in (
        ([SpecificSampler(), one], "the same number of images"),
        ([SpecificSampler(), SpecificSampler()], "groups with names of its own"),
        ([SpecificSampler(), lambda t, s: t.queries()], "without a named group"),
    ):
        joint = JointSampler(samplers)
        with pytest.raises(UsageError, match=sentence):
            tiny_distiller(tiny_detector(), tiny_detector(), sampler=joint)(tiny_batch())


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda p, a: a.boxes[-1], r"a Tensor of shape \(2, 10, 4\) instead of Queries"),
        (lambda p, a: Queries(a.boxes[-1]), r"10 queries in the groups \{\}"),
        (lambda p, a: p.first(4).named("general"), "return one query for each point"),
    ],
)
def test_a_placement_has_to_give_one_query_for_each_point(make, sentence):
    with pytest.raises(UsageError, match=sentence):
        distiller(query_placement=make)(tiny_batch())


@pytest.mark.parametrize("shape", [(), (5,), (1, 2, 5, 4), (2, 5), (1, 2, 5, 1), (1, 5, 2)])
def test_a_term_or_weighting_of_another_shape_is_refused(shape):
    """Some of these shapes would be broadcast, and give points the weights of other points."""
    both = Predictions(torch.randn(1, 2, 5, 4), torch.rand(1, 2, 5, 4))
    points = Queries(torch.rand(2, 5, 4)).named("mine")
    wrong = Mine(lambda *_: torch.ones(shape))
    losses = [WeightedMeanLoss(box_losses=[L1Loss(), wrong])]
    if shape != (2, 5):
        losses.append(WeightedMeanLoss(weighting=wrong))
    for loss in losses:
        with pytest.raises(UsageError, match=r"Mine returned a Tensor of shape .* \(L, B, N\)"):
            loss(both, both, points)


TWICE = tiny_detector()


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        ({"student": nn.Linear(2, 2)}, "The student is a Linear, which is not a Detector"),
        ({"teacher": None}, "needs a teacher: give one"),
        ({"sampler": None}, "The sampler is None, which cannot be called"),
        ({"sampler": lambda teacher: None}, "cannot be called with 2 arguments"),
        ({"loss": SpecificSampler()}, "cannot be called with 3 arguments"),
        ({"loss": "kd"}, "The loss is 'kd', which cannot be called"),
        ({"sampler": SpecificSampler}, "The sampler is the class SpecificSampler itself"),
        ({"student": TWICE, "teacher": TWICE}, "Teacher and student share weights"),
        ({"query_placement": 3}, "The query_placement is 3, which cannot be called"),
    ],
)
def test_parts_of_the_wrong_kind_are_refused(parts, sentence):
    parts = {"student": tiny_detector(), "teacher": tiny_detector(seed=1), **parts}
    with pytest.raises(UsageError, match=sentence):
        tiny_distiller(**parts)


def test_the_losses_of_a_student_of_ones_own_are_checked_too():
    model = distiller(loss=lambda student, *_: {"mine": gap(student)})
    for wrong in (None, [gap], {"loss": gap}):
        model.student.losses = lambda memory, inputs, wrong=wrong: wrong
        with pytest.raises(UsageError, match="DetectionTransformer returned"):
            model(tiny_batch())


def test_a_wrapper_of_a_teacher_needs_a_detector():
    for wrong in (None, nn.Linear(2, 2)):
        with pytest.raises(UsageError, match="CachedEncoder is around"):
            CachedEncoder(wrong)
        with pytest.raises(UsageError, match="Vocabulary is around"):
            Vocabulary(detector=wrong, classes=["a"], wanted=["a"])


@pytest.mark.parametrize("part", [SpecificSampler(), lambda: None, 3])
def test_a_weighting_or_a_term_with_other_arguments_is_refused(part):
    with pytest.raises(ValueError, match="cannot be called with the teacher's predictions alone"):
        WeightedMeanLoss(weighting=part)
    with pytest.raises(ValueError, match="A term of a loss is"):
        WeightedMeanLoss(class_loss=part)
