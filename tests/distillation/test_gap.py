"""The figures of the gap, on predictions for which they are known."""

import math

import pytest
import torch

from kddetr.gap import gap_at_points, gap_means, gap_sums, gap_table
from kddetr.structures import Predictions, Queries


def predictions(logits, boxes, **options) -> Predictions:
    """Of one layer and one image, from (N, K) logits and (N, 4) boxes."""
    return Predictions(torch.tensor(logits)[None, None], torch.tensor(boxes)[None, None], **options)


def points(**groups: int) -> Queries:
    return Queries(torch.rand(1, sum(groups.values()), 4), groups=groups)


LEFT, RIGHT = [0.25, 0.5, 0.5, 1.0], [0.75, 0.5, 0.5, 1.0]
WHOLE = [0.5, 0.5, 1.0, 1.0]
TEACHER = predictions([[3.0, -3.0], [-3.0, -4.0]], [LEFT, WHOLE])
STUDENT = predictions([[-1.0, 1.0], [-3.0, -4.0]], [RIGHT, LEFT])


def test_a_student_with_the_same_answers_has_no_gap():
    figures = gap_at_points(TEACHER, TEACHER)
    assert figures["agreement"].tolist() == [[1, 1]]
    torch.testing.assert_close(figures["iou"], torch.ones(1, 2), atol=1e-4, rtol=0)
    torch.testing.assert_close(figures["kl"], torch.zeros(1, 2), atol=1e-6, rtol=0)


def test_the_figures_are_those_computed_by_hand():
    figures = gap_at_points(STUDENT, TEACHER)
    assert figures["agreement"].tolist() == [[0, 1]]
    torch.testing.assert_close(figures["iou"], torch.tensor([[0.0, 0.5]]), atol=1e-4, rtol=0)
    pairs = [
        (torch.tensor(t).sigmoid(), torch.tensor(s).sigmoid())
        for t, s in ((3.0, -1.0), (-3.0, 1.0))
    ]
    kl = sum(float(p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()) for p, q in pairs)
    torch.testing.assert_close(figures["kl"], torch.tensor([[kl, 0.0]]), atol=1e-5, rtol=1e-4)


def test_means_are_plain_and_weighted_by_the_teachers_certainty():
    means = gap_means(gap_sums(STUDENT, TEACHER, points(mine=2)))["mine"]
    first, second = (1 / (1 + math.exp(-x)) for x in (3.0, -3.0))
    assert means["agreement"] == pytest.approx(0.5)
    assert means["agreement_fg"] == pytest.approx(second / (first + second))
    assert means["iou_fg"] == pytest.approx(0.5 * second / (first + second), abs=1e-4)


def test_groups_are_apart_and_one_without_points_is_left_out():
    sums = gap_sums(STUDENT, TEACHER, points(first=1, none=0, second=1))
    means = gap_means(sums)
    assert list(means) == ["first", "second"]
    assert (means["first"]["agreement"], means["second"]["agreement"]) == (0, 1)
    both = gap_sums(STUDENT, TEACHER, points(both=2))["both"]
    torch.testing.assert_close(sums["first"] + sums["second"], both)
    assert [line.count("|") for line in gap_table(means).splitlines()] == [8] * 4


def test_a_point_that_was_not_answered_does_not_count():
    answered = torch.tensor([[[False, True]]])
    teacher = Predictions(TEACHER.logits, TEACHER.boxes, answered=answered)
    alone = gap_means(gap_sums(STUDENT, teacher, points(mine=2)))["mine"]
    second = gap_means(gap_sums(STUDENT, TEACHER, points(first=1, second=1)))["second"]
    assert alone == pytest.approx(second)


def test_of_boxes_for_every_class_that_of_the_teachers_class_counts():
    """The student takes the second class, whose box is wrong; the teacher's class has the right."""
    by_class = torch.tensor([[LEFT, RIGHT], [WHOLE, LEFT]])[None, None]
    student = Predictions(STUDENT.logits, STUDENT.boxes, class_boxes=by_class)
    iou = gap_at_points(student, TEACHER)["iou"]
    torch.testing.assert_close(iou, torch.ones(1, 2), atol=1e-4, rtol=0)
