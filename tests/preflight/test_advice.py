"""What is said about made-up figures."""

from collections import Counter

import numpy as np
import pytest

from kddetr.preflight.advice import refusals, warnings
from kddetr.preflight.measured import Measured, Run
from kddetr.preflight.names import LabelCounts, compare_names, count_labels
from kddetr.preflight.report import report_on
from kddetr.preflight.sample_ap import SampleAP
from kddetr.preflight.steps import StepFigures


def ap(value: float, spread: float = 2.0, **classes: float) -> SampleAP:
    resampled = value + spread * np.linspace(-1, 1, 200)
    classes = classes or {"cat": value}
    return SampleAP(value, classes, dict.fromkeys(classes, 30), 100, resampled)


def measured(**parts) -> Measured:
    """A run of which nothing is to be said, but for some parts."""
    usual = {
        "run": Run(1000, 8, 500, 0, 100, 4),
        "vocabularies": compare_names(["cat", "dog"], ["dog", "cat"], {0: 3, 1: 5}),
        "labels": LabelCounts(500, Counter({0: 3, 1: 5})),
        "steps": StepFigures([0.1], [0.15], [], [0.01], {"plain": 100.0}, None, 8),
        "ratios": [0.9, 1.1, 1.2],
        "teacher": ap(60),
        "judged_on": "validation",
        "seconds_an_image": 0.01,
    }
    return Measured(**usual | parts)


def test_nothing_is_said_of_a_run_that_is_well():
    assert warnings(measured()) == refusals(measured()) == []


BOXES = {0: 9, 1: 1}


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"teacher": ap(15)}, "only 15.0, which is about the most that a student can learn"),
        ({"student": ap(61)}, "no better than the weights that the student starts from"),
        ({"alone": 61.0}, "no better than the student alone (AP 61.0), though this sample is"),
        ({"alone": 70.0}, "no better than the student alone (AP 70.0): a distillation"),
        (
            {"teacher": ap(40), "labels": LabelCounts(160, {})},
            "only 160 labelled images and the teacher has AP 40.0",
        ),
        (
            {"vocabularies": compare_names(["cats", "dog"], ["cat", "dog"], BOXES)},
            "knows 1 of the 2 classes of the data, with 10 % of the boxes, and not 'cats' (did you"
            " mean cat?): the other classes have only their labels to learn from; train a teacher",
        ),
        (
            {"vocabularies": compare_names(["dog", "owl"], ["cat", "dog"], BOXES)},
            "with 90 % of the boxes, and not 'owl': the other classes have only their labels to"
            " learn from.",
        ),
        ({"ratios": [0.01, 0.02, 0.03]}, "only 0.02 times that of the labels"),
        ({"ratios": [100.0]}, "100 times as strong"),
        (
            {"steps": StepFigures([0.1], [0.3])},
            "takes 3.0 times as long as a step of the student alone",
        ),
        ({"seconds_an_image": 1.0}, "The 4 evaluations take 71 % of the run"),
    ],
)
def test_what_is_warned_of(parts, words):
    (warning,) = warnings(measured(**parts))
    assert words.replace("100 times as strong", "is 1e+02 times that of the labels") in warning


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"teacher": ap(0.1, 0.1)}, "finds next to nothing"),
        ({"steps": StepFigures(fits=5, images=8)}, "and 4 do: set train.accumulate=2"),
        ({"steps": StepFigures(fits=0, images=4)}, "Not even one image"),
        (
            {"vocabularies": compare_names(["owl"], ["cat", "dog"], {})},
            "knows none of the 1 classes of the data: 'owl'",
        ),
        ({"unbuildable": "It cannot be built."}, "It cannot be built."),
    ],
)
def test_what_is_refused(parts, words):
    (refusal,) = refusals(measured(**parts))
    assert words in refusal


def test_a_recorded_teacher_is_not_to_be_recorded():
    assert warnings(measured(steps=StepFigures([0.1], [0.3]), recorded=True)) == []


def test_a_teacher_that_remembers_is_slow_only_at_first():
    steps = StepFigures([0.1], [0.5], [0.15], [0.0])
    m = measured(steps=steps)
    assert warnings(m) == []
    # 500 images are met first in 62.5 of the 1000 iterations of 8.
    assert m.training_seconds == pytest.approx(62.5 * 0.5 + 937.5 * 0.15)


def test_the_ratio_of_a_balanced_weight_is_that_of_the_run():
    m = measured(ratios=[4.0], settled=0.25)
    assert m.ratio == 1 and m.figures()["weight"] == 0.25
    assert "model.weight=auto has become 0.25" in str(report_on(m))


def test_weak_classes_are_named_the_weakest_first():
    m = measured(teacher=ap(50, owl=10.0, cat=80.0, dog=20.0))
    assert "It is weak at owl 10.0 (30 objects), dog 20.0 (30 objects)." in str(report_on(m))


def test_labels_of_large_data_are_counted_on_a_part(monkeypatch):
    monkeypatch.setattr("kddetr.preflight.names.MOST_RECORDS", 10)
    notes = [{"category_id": 1}, {"category_id": 0, "iscrowd": 1}]
    records = [{"annotations": notes} if i % 2 else {} for i in range(90)]
    counts = count_labels(records)
    assert counts.images == pytest.approx(45, abs=10) and set(counts.boxes) == {1}
