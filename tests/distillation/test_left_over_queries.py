"""Points without a recorded answer count nothing, in no loss and in no mean."""

import pytest
import torch

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
from kddetr.points import AtAnswers, SpecificSampler
from kddetr.structures import Predictions, Queries
from kddetr.teachers import RecordedTeacher
from tests.records import image_files, random_record
from tests.tiny import tiny_detector, tiny_distiller

LAYERS, ASKED, LEFT_OVER, CLASSES = 2, 4, 3, 5


def twice(teacher):
    """A weighting of one's own, which knows nothing of points without an answer."""
    return torch.full(teacher.logits.shape[1:3], 2.0)


def predictions(layers: int) -> Predictions:
    shape = (layers, 2, ASKED)
    return Predictions(torch.randn(*shape, CLASSES), 0.2 + 0.3 * torch.rand(*shape, 4))


def padded(found: Predictions) -> Predictions:
    """Together with random predictions that are left over."""
    more = (*found.logits.shape[:2], LEFT_OVER)
    there = torch.arange(ASKED + LEFT_OVER) < ASKED
    return Predictions(
        torch.cat([found.logits, torch.randn(*more, CLASSES)], 2),
        torch.cat([found.boxes, torch.rand(*more, 4)], 2),
        answered=there.expand(*more[:2], -1),
    )


@pytest.mark.parametrize("weighting", [ForegroundWeight(), EqualWeight(), twice])
@pytest.mark.parametrize("kind", [KLDivergence, KLWithBackground, BinaryCrossEntropy])
@pytest.mark.parametrize("reduction", [WeightedMeanLoss, PublishedLoss])
def test_points_without_an_answer_count_nothing(reduction, kind, weighting):
    torch.manual_seed(0)
    loss = reduction(class_loss=kind(), box_losses=[L1Loss(), GIoULoss()], weighting=weighting)
    student, teacher = predictions(LAYERS), predictions(1)
    more_student, more_teacher = padded(student), padded(teacher)
    more_student.logits.requires_grad_()
    more_student.boxes.requires_grad_()
    points = [Queries(torch.rand(2, n, 4)).named("p") for n in (ASKED, ASKED + LEFT_OVER)]
    expected = loss(student, teacher, points[0])
    found = loss(more_student, more_teacher, points[1])
    torch.testing.assert_close(found, expected)
    sum(found.values()).backward()
    for part in (more_student.logits, more_student.boxes):
        assert part.grad[:, :, :ASKED].any() and not part.grad[:, :, ASKED:].any()
        assert part.grad.isfinite().all()


@pytest.mark.parametrize("placement", [None, AtAnswers()])
@pytest.mark.parametrize("autocast", [False, True])
def test_images_without_any_answer_train_nothing(placement, autocast, tmp_path):
    """Unlabelled ones, so that every loss is 0, with a gradient of 0 for every parameter."""
    images = image_files(tmp_path / "images")
    teacher = RecordedTeacher(path=random_record(tmp_path / "record", images, (0, 0, 0)))
    model = tiny_distiller(
        tiny_detector(), teacher, sampler=SpecificSampler(), query_placement=placement
    )
    inputs = [
        {"image": torch.zeros(3, 40, 56, dtype=torch.uint8), "height": 40, "width": 56}
        | {"file_name": images[0]["file_name"], "affine": torch.eye(2, 3).double().numpy()}
    ]
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        losses = model(inputs)
    assert {name for name in losses if name.startswith("kd_specific/")}
    assert all(value == 0 for value in losses.values())
    sum(losses.values()).backward()
    assert not any(p.grad.any() for p in model.parameters() if p.grad is not None)


def test_the_mark_goes_where_the_predictions_go():
    found = padded(predictions(LAYERS))
    marks = found.answered
    parts = found.split({"a": ASKED, "b": LEFT_OVER})
    assert parts["a"].answered.all() and not parts["b"].answered.any()
    assert torch.equal(Predictions.cat(list(parts.values()), dim=2).answered, marks)
    for one in (found.last(), found.of_layers([0]), found.last().detach().to("cpu")):
        assert torch.equal(one.answered, marks[:1])
