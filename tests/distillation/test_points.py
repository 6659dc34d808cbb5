"""Where teacher and student are asked: samplers of distillation points, and query placements."""

import pytest
import torch

from kddetr.detectors import RegionDetector
from kddetr.errors import UsageError
from kddetr.points import (
    AtAnswers,
    GeneralSampler,
    JointSampler,
    NearbySampler,
    SpecificSampler,
    StudentSampler,
    jittered,
)
from kddetr.structures import EncodedDetector, Predictions, Queries
from tests.stock_models import tiny_faster_rcnn
from tests.tiny import FAMILIES, tiny_batch, tiny_detector, tiny_distiller

BOX_FAMILIES = [
    family for family in FAMILIES if "position" not in tiny_detector(family).query_parts
]


def encoded(detector, sizes=((40, 56), (48, 40))) -> EncodedDetector:
    with torch.no_grad():
        return EncodedDetector(detector, detector.encode(tiny_batch(sizes)))


def teacher_of(family="dab_detr") -> EncodedDetector:
    return encoded(tiny_detector(family).eval())


def student() -> EncodedDetector:
    return encoded(RegionDetector(tiny_faster_rcnn()).eval())


def assert_same_queries(found: Queries, expected: Queries) -> None:
    for part in ("boxes", "content", "position"):
        ours, theirs = getattr(found, part), getattr(expected, part)
        assert (ours is None) == (theirs is None)
        assert ours is None or torch.equal(ours, theirs)


@pytest.mark.parametrize("distribution", ["uniform", "normal_logit"])
def test_general_points_are_new_at_each_step_and_reproducible(distribution):
    teacher = teacher_of()
    sampler = GeneralSampler(count=50, distribution=distribution)
    torch.manual_seed(0)
    first, second = sampler(teacher, teacher), sampler(teacher, teacher)
    assert not torch.equal(first.boxes, second.boxes)
    torch.manual_seed(0)
    assert torch.equal(sampler(teacher, teacher).boxes, first.boxes)
    assert first.groups == {"general": 50}
    assert first.boxes.min() >= 0 and first.boxes.max() <= 1


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("shared", [True, False])
def test_general_points_are_one_set_for_all_images_or_one_for_each(family, shared):
    teacher = teacher_of(family)
    boxes = GeneralSampler(count=50, shared=shared)(teacher, teacher).boxes
    assert len(boxes) == 2 and torch.equal(boxes[0], boxes[1]) == shared


def test_uniform_boxes_cover_the_image_and_normal_logit_boxes_its_middle():
    teacher, spread = teacher_of(), {}
    for name in ("uniform", "normal_logit"):
        spread[name] = GeneralSampler(count=4000, distribution=name)(teacher, teacher).boxes.std()
    assert float(spread["uniform"]) == pytest.approx(12**-0.5, abs=0.01)
    assert spread["normal_logit"] < spread["uniform"] * 0.8


@pytest.mark.parametrize("family", FAMILIES)
def test_specific_points_are_the_teachers_own_queries_or_the_first_of_them(family):
    teacher = teacher_of(family)
    points = SpecificSampler()(teacher, teacher)
    assert points.groups == {"specific": 6} and not points.boxes.requires_grad
    assert_same_queries(points, teacher.queries())
    few = SpecificSampler(count=2)(teacher, teacher)
    assert few.groups == {"specific": 2}
    assert_same_queries(few, teacher.queries().first(2))
    assert teacher.decode(few).logits.shape[2] == 2


@pytest.mark.parametrize("family", BOX_FAMILIES)
@torch.no_grad()
def test_the_teacher_makes_its_own_queries_of_the_students_boxes(family):
    teacher, asked = teacher_of(family), student()
    torch.manual_seed(0)
    points = StudentSampler(count=5)(teacher, asked)
    own = asked.queries().boxes[:, :5]
    assert points.groups == {"student": 5}
    torch.manual_seed(0)  # DINO draws the content of a new query from its learned rows
    assert_same_queries(points, teacher.make_queries(own))
    moved = teacher.decode(teacher.make_queries(own * 0.5))
    assert not torch.allclose(teacher.decode(points).logits, moved.logits)


def test_the_student_sampler_takes_no_more_queries_than_there_are():
    asked = student()
    found = StudentSampler(count=10_000)(teacher_of(), asked)
    assert found.groups == {"student": len(asked.queries())}


def test_nearby_points_are_close_to_the_teachers_predictions():
    teacher = teacher_of()
    predicted = teacher.decode(teacher.queries()).boxes[-1]
    exact = NearbySampler(shift=0, scale=0)(teacher, teacher)
    assert torch.equal(exact.boxes, predicted) and exact.groups == {"nearby": 6}
    torch.manual_seed(0)
    first, second = (NearbySampler()(teacher, teacher) for _ in range(2))
    torch.manual_seed(0)
    again = NearbySampler()(teacher, teacher)
    assert torch.equal(first.boxes, again.boxes) and not torch.equal(first.boxes, second.boxes)
    assert not first.boxes.requires_grad


def test_jitter_stays_within_its_bounds():
    torch.manual_seed(0)
    boxes = torch.tensor([[0.5, 0.5, 0.2, 0.4]]).expand(4000, 4)
    moved = jittered(boxes, shift=0.2, scale=0.3)
    shift = (moved[:, :2] - boxes[:, :2]) / boxes[:, 2:]
    scale = (moved[:, 2:] / boxes[:, 2:]).log()
    for found, bound in ((shift, 0.2), (scale, 0.3)):
        assert found.abs().max() <= bound + 1e-6 and found.abs().max() > 0.99 * bound
        assert found.mean().abs() < 0.01
        assert found.std() == pytest.approx(bound / 3**0.5, rel=0.02)


def test_a_placement_at_answers_keeps_the_groups_and_drops_the_content():
    points = Queries(torch.rand(2, 5, 4), content=torch.rand(2, 5, 8), groups={"a": 2, "b": 3})
    answers = Predictions(torch.rand(3, 2, 5, 4), torch.rand(3, 2, 5, 4))
    placed = AtAnswers()(points, answers)
    assert placed.groups == points.groups and placed.content is None
    assert torch.equal(AtAnswers(shift=0, scale=0)(points, answers).boxes, answers.boxes[-1])


@pytest.mark.parametrize("sampler", [GeneralSampler, SpecificSampler, StudentSampler])
def test_less_than_one_point_is_refused(sampler):
    with pytest.raises(ValueError, match="at least 1, not 0"):
        sampler(count=0)


def test_unknown_distributions_and_clashing_groups_are_refused():
    with pytest.raises(ValueError, match="one of 'uniform', 'normal_logit'"):
        GeneralSampler(distribution="gauss")
    with pytest.raises(ValueError, match="at least one sampler"):
        JointSampler([])
    with pytest.raises(ValueError, match="has the class SpecificSampler itself: make an object"):
        JointSampler([SpecificSampler])
    teacher = teacher_of()
    with pytest.raises(ValueError, match="groups with names of its own"):
        JointSampler([SpecificSampler(), SpecificSampler()])(teacher, teacher)


def test_points_without_a_named_group_are_refused():
    """A loss goes through the groups, so it would return nothing for such points."""
    model = tiny_distiller(
        tiny_detector(seed=1),
        tiny_detector(seed=2),
        sampler=lambda teacher, student: teacher.make_queries(torch.rand(1, 5, 4)),
    )
    with pytest.raises(UsageError, match=r"name them with Queries\.named"):
        model(tiny_batch())
