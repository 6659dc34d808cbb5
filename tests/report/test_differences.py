"""The points at which two detectors differ most."""

import torch

from kddetr.report.differences import differences
from kddetr.structures import Predictions, Queries


def test_classes_are_the_students_where_the_teacher_knows_only_some():
    logits, boxes = torch.tensor([[[[-4.0, 4.0]]]]), torch.full((1, 1, 1, 4), 0.5)
    some = torch.tensor([2, 5])
    both = [Predictions(logits * sign, boxes, classes=some) for sign in (1, -1)]
    image = {"image": torch.zeros(3, 8, 8), "file_name": "a.png"}
    (found,) = differences([image], *both, Queries(boxes[0]))
    assert [classes.tolist() for *_, classes in found.answers] == [[2], [5]]
