"""Points without a recorded answer count nothing, in no loss and in no mean."""

from dataclasses import replace

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
from kddetr.predictions import NO_ANSWER
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


def padded(found: Predictions, logits: torch.Tensor, boxes: torch.Tensor) -> Predictions:
    more = (*found.logits.shape[:2], LEFT_OVER)
    return Predictions(
        torch.cat([found.logits, logits.expand(*more, CLASSES)], 2),
        torch.cat([found.boxes, boxes.expand(*more, 4)], 2),
    )


@pytest.mark.parametrize("weighting", [ForegroundWeight(), EqualWeight(), twice])
@pytest.mark.parametrize("kind", [KLDivergence, KLWithBackground, BinaryCrossEntropy])
@pytest.mark.parametrize("reduction", [WeightedMeanLoss, PublishedLoss])
def test_points_without_an_answer_count_nothing(reduction, kind, weighting):
    torch.manual_seed(0)
    loss = reduction(class_loss=kind(), box_losses=[L1Loss(), GIoULoss()], weighting=weighting)
    student, teacher = predictions(LAYERS), predictions(1)
    whole = torch.tensor([0.5, 0.5, 1, 1])
    more_student = padded(student, torch.randn(CLASSES), torch.rand(4))
    more_student.logits.requires_grad_()
    more_student.boxes.requires_grad_()
    more_teacher = padded(teacher, torch.tensor(NO_ANSWER), whole)
    points = [Queries(torch.rand(2, n, 4)).named("p") for n in (ASKED, ASKED + LEFT_OVER)]
    expected = loss(student, teacher, points[0])
    found = loss(more_student, more_teacher, points[1])
    torch.testing.assert_close(found, expected)
    sum(found.values()).backward()
    for part in (more_student.logits, more_student.boxes):
        assert part.grad[:, :, :ASKED].any() and not part.grad[:, :, ASKED:].any()
        assert part.grad.isfinite().all()


def test_the_foreground_weight_without_an_answer_is_exactly_zero():
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        logits = torch.full((1, 1, 1, CLASSES), NO_ANSWER, dtype=dtype)
        assert ForegroundWeight()(Predictions(logits, torch.zeros(1, 1, 1, 4))).item() == 0


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


def test_a_live_teacher_answers_every_point():
    """However sure of background it is: the loss is what it was."""
    torch.manual_seed(0)
    student, teacher = predictions(LAYERS), predictions(1)
    teacher = replace(teacher, logits=teacher.logits - 150)
    points = Queries(torch.rand(2, ASKED, 4)).named("p")
    loss = WeightedMeanLoss(weighting=EqualWeight())
    found = loss(student, teacher, points)
    terms = (loss.class_loss, *loss.box_losses)
    for term in terms:
        expected = term.weight * term(student, teacher).mean((1, 2)).sum()
        torch.testing.assert_close(found[f"kd_p/{term.name}"], expected)
