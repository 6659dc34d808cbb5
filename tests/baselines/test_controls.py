"""Controls: points that differ, own queries that are paired, and answers about other images."""

from dataclasses import replace

import pytest
import torch

from kddetr.baselines import (
    GIoUWeight,
    HungarianPairing,
    IndexPairing,
    NoPoints,
    OtherPlaces,
    ShuffledAnswers,
)
from kddetr.errors import UsageError
from kddetr.losses import WeightedMeanLoss
from kddetr.predictions import Predictions
from kddetr.structures import EncodedDetector, Queries
from kddetr.teachers import CachedEncoder
from tests.tiny import tiny_batch, tiny_detector, tiny_distiller

PLAIN = tiny_batch(((40, 56), (40, 56)), boxes=(2, None))  # one image is unlabelled


def distiller(family="dab_deformable_detr", **options):
    return tiny_distiller(tiny_detector(family), tiny_detector(family, seed=1), **options)


def step(model, batch=PLAIN):
    torch.manual_seed(7)
    return model(batch)


def points(count, images=2):
    boxes = torch.rand(1, count, 4).expand(images, -1, -1)
    return Queries(boxes, groups={"a": 1, "b": count - 1})


def test_at_a_share_of_1_other_places_is_kd_detr():
    expected = step(distiller())
    found = step(distiller(query_placement=OtherPlaces(share=1.0)))
    torch.testing.assert_close(found, expected)


def test_other_places_keeps_its_share_of_the_points():
    given = points(2000)
    for share in (0.0, 0.25, 1.0):
        placed = OtherPlaces(share=share)(given, None)
        kept = (placed.boxes == given.boxes).all(-1).float().mean(1)
        torch.testing.assert_close(kept, torch.full((2,), share), atol=0.04, rtol=0)
        assert placed.groups == given.groups
        assert ((placed.boxes >= 0) & (placed.boxes <= 1)).all()


def test_other_places_refuses_what_it_cannot_place():
    with pytest.raises(ValueError, match="share must be a number from 0 to 1, not 2"):
        OtherPlaces(share=2)
    with pytest.raises(UsageError, match="needs a teacher whose queries are boxes and nothing"):
        step(distiller("dino", query_placement=OtherPlaces()))


@pytest.mark.parametrize("loss", [IndexPairing, HungarianPairing])
def test_a_detector_that_is_paired_with_itself_differs_in_nothing(loss):
    model = distiller(sampler=NoPoints(), loss=loss())
    model.student.load_state_dict(model.teacher.state_dict())
    losses = step(model.eval().train())
    found = {name: value for name, value in losses.items() if name.startswith("kd_")}
    assert list(found) == ["kd_paired/class", "kd_paired/bbox", "kd_paired/giou"]
    # The teacher's last layer is compared with every layer of the student.
    model.loss.loss = WeightedMeanLoss(student_layers="last")
    for name, value in step(model).items():
        if name.startswith("kd_"):
            assert value.abs() < 1e-4, name


def test_hungarian_pairing_undoes_any_order_of_the_queries():
    torch.manual_seed(0)
    teacher = Predictions(torch.randn(2, 3, 7, 4), torch.rand(2, 3, 7, 4))
    order = torch.stack([torch.randperm(7) for _ in range(3)])
    ours, theirs = HungarianPairing().pair(teacher.of_queries(order), teacher)
    for name in ("logits", "boxes"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name))


@pytest.mark.parametrize("more", ["student", "teacher"])
def test_other_numbers_of_queries(more):
    options = {"student": {}, "teacher": {"seed": 1}}
    options[more]["num_queries"] = 9
    student, teacher = (tiny_detector(**options[n]) for n in ("student", "teacher"))
    losses = step(tiny_distiller(student, teacher, sampler=NoPoints(), loss=HungarianPairing()))
    assert all(value.isfinite() for value in losses.values())
    model = tiny_distiller(student, teacher, sampler=NoPoints(), loss=IndexPairing())
    with pytest.raises(UsageError, match="cannot be paired by their index: set num_queries"):
        step(model)


@pytest.mark.parametrize("loss", [IndexPairing, HungarianPairing])
def test_pairing_encodes_nothing_again_and_trains_the_own_queries(loss):
    model = distiller(sampler=NoPoints(), loss=loss())
    encoded = []
    for detector in (model.student, model.teacher):
        detector.encoder.register_forward_hook(lambda *_: encoded.append(1))
    losses = step(model)
    assert len(encoded) == 2
    sum(value for name, value in losses.items() if name.startswith("kd_")).backward()
    assert model.student.query_source.anchors.grad.any()


def test_pairing_takes_the_answers_of_a_cached_teacher():
    """They are the same numbers up to the rounding of the kept tokens."""
    expected = step(distiller(sampler=NoPoints(), loss=IndexPairing()))
    teacher = CachedEncoder(tiny_detector("dab_deformable_detr", seed=1), dtype="float32")
    student = tiny_detector("dab_deformable_detr")
    found = step(tiny_distiller(student, teacher, sampler=NoPoints(), loss=IndexPairing()))
    torch.testing.assert_close(found, expected)


def test_shuffled_answers_are_those_about_the_next_image():
    detector = tiny_detector().eval()
    batch = tiny_batch(((40, 56),) * 3, boxes=(1, 1, 1))
    turned = [*batch[1:], batch[0]]
    asked = points(5, images=3)
    with torch.no_grad():
        answers, other = (
            EncodedDetector(detector, detector.encode(x)).decode(asked) for x in (batch, turned)
        )
        student = replace(answers, boxes=answers.boxes.flip(2))
        inner = WeightedMeanLoss()
        found = ShuffledAnswers(inner)(student, answers, asked)
        expected = inner(student, other, asked)
    torch.testing.assert_close(found, expected)


def test_shuffled_answers_need_two_images():
    model = distiller(loss=ShuffledAnswers(WeightedMeanLoss()))
    with pytest.raises(UsageError, match="this batch has a single image"):
        step(model, PLAIN[:1])


@pytest.mark.parametrize(
    "inner", [WeightedMeanLoss(weighting=GIoUWeight()), IndexPairing()], ids=["truth", "queries"]
)
def test_shuffled_answers_do_not_know_the_images_that_they_are_about(inner):
    """Their images and memory would be those of the order before."""
    model = distiller(loss=ShuffledAnswers(inner))
    with pytest.raises(UsageError, match="needs the images of the predictions"):
        step(model)


def test_a_student_may_have_more_queries_of_its_own():
    losses = tiny_detector("dab_deformable_detr", num_queries=12).train()(PLAIN)
    assert all(value.isfinite() for value in losses.values())
