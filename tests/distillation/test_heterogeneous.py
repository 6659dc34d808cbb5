"""A transformer teaches a region detector, and the other way round."""

import copy

import pytest
import torch
from detectron2.utils.events import EventStorage

from kddetr import KDDETR
from kddetr.detectors import RegionDetector
from kddetr.errors import UsageError
from kddetr.points import (
    AtAnswers,
    GeneralSampler,
    JointSampler,
    NearbySampler,
    SpecificSampler,
    StudentSampler,
)
from tests.stock_models import tiny_c4, tiny_cascade_rcnn, tiny_faster_rcnn
from tests.tiny import (
    FAMILIES,
    assert_same_tensors,
    tiny_batch,
    tiny_detector,
    tiny_distiller,
)

SIZES = ((64, 80), (56, 72))
EMBEDDINGS = ("deformable_detr", "deformable_detr_plain")  # one-stage: queries without boxes
BOXES = [family for family in FAMILIES if family not in EMBEDDINGS]


def pair(teacher="dab_detr", stock=tiny_faster_rcnn, **options) -> KDDETR:
    """A transformer teaches a region detector, by default at points of all kinds."""
    samplers = [GeneralSampler(count=4), SpecificSampler(), StudentSampler(count=5)]
    options = {"sampler": JointSampler([*samplers, NearbySampler()]), **options}
    return tiny_distiller(RegionDetector(stock()), tiny_detector(teacher), **options)


def step(model, batch=None, seed=0) -> dict:
    torch.manual_seed(seed)
    with EventStorage():
        return model(batch or tiny_batch(SIZES))


@pytest.mark.parametrize("stock", [tiny_faster_rcnn, tiny_cascade_rcnn, tiny_c4])
@pytest.mark.parametrize("teacher", BOXES)
def test_any_transformer_of_boxes_teaches_any_region_detector(teacher, stock):
    model = pair(teacher, stock)
    before = copy.deepcopy(model.teacher.state_dict())
    losses = step(model)
    groups = {name.split("/")[0] for name in losses if name.startswith("kd_")}
    assert groups == {"kd_general", "kd_specific", "kd_student", "kd_nearby"}
    assert all(torch.isfinite(value) for value in losses.values())
    sum(value for name, value in losses.items() if name.startswith("kd_")).backward()
    trained = {n for n, p in model.student.named_parameters() if p.grad is not None}
    for part in ("cls_score", "bbox_pred", "backbone"):
        assert any(part in name for name in trained)
    # Proposals are used as points without a gradient.
    assert not any("proposal_generator" in name for name in trained)
    assert_same_tensors(model.teacher.state_dict(), before)


@pytest.mark.parametrize("teacher", EMBEDDINGS)
def test_a_one_stage_deformable_detr_teaches_by_its_answers_alone(teacher):
    """Its queries are not boxes, but the boxes that it predicts are."""
    with pytest.raises(UsageError, match="of the same kind, or ask a student"):
        pair(teacher)
    sampler = JointSampler([GeneralSampler(count=4), SpecificSampler()])
    losses = step(pair(teacher, sampler=sampler, query_placement=AtAnswers()))
    assert all(torch.isfinite(value) for value in losses.values())
    assert {"kd_general/class", "kd_specific/class"} < losses.keys()
    for sampler in (StudentSampler(), NearbySampler()):
        with pytest.raises(UsageError, match="cannot make a query at a box"):
            step(pair(teacher, sampler=sampler, query_placement=AtAnswers()))
    with pytest.raises(UsageError, match="of the same kind"):
        tiny_distiller(tiny_detector(teacher), tiny_detector(), query_placement=AtAnswers())


def test_weight_0_is_the_plain_training_bit_for_bit():
    """Compared with the stock model itself, which gets the same images in BGR."""
    stock = tiny_faster_rcnn()
    model = pair(weight=0.0, query_placement=AtAnswers(), stock=lambda: copy.deepcopy(stock))
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.01, momentum=0.9) for m in (stock, model)]
    stock.train()
    for i in range(3):
        batch = tiny_batch(SIZES, seed=i)
        losses = step(model, batch, seed=i)
        plain = step(stock, [x | {"image": x["image"].flip(0)} for x in batch], seed=i)
        assert list(losses) == list(plain)
        for loss, optimizer in ((plain, optimizers[0]), (losses, optimizers[1])):
            optimizer.zero_grad()
            sum(loss.values()).backward()
            optimizer.step()
    assert_same_tensors(model.student.stock.state_dict(), stock.state_dict())


def test_distillation_does_not_change_the_students_own_losses():
    with_points, without = step(pair(query_placement=AtAnswers())), step(pair(weight=0.0))
    for name, value in without.items():
        assert torch.equal(with_points[name], value)


def test_every_image_is_encoded_once_by_each_detector():
    model, runs = pair(query_placement=AtAnswers()), {"student": [], "teacher": [], "proposals": []}
    for key, module in (
        ("student", model.student.stock.backbone),
        ("teacher", model.teacher.backbone),
        ("proposals", model.student.stock.proposal_generator.rpn_head),
    ):
        module.register_forward_pre_hook(
            lambda _, x, key=key: runs[key].append(len(x[0]) if torch.is_tensor(x[0]) else 1)
        )
    step(model)
    # The transformer's backbone runs once for each of the two image sizes. Proposals are made for
    # the student's own losses, and once more, with the limits of evaluation, for StudentSampler.
    assert runs == {"student": [2], "teacher": [1, 1], "proposals": [1, 1]}


def test_unlabelled_images_are_distilled():
    model = pair()
    losses = step(model, tiny_batch(SIZES, boxes=(3, None)))
    assert all(torch.isfinite(v) and v > 0 for k, v in losses.items() if k.endswith("class"))
    losses = step(model, tiny_batch(SIZES, boxes=(None, None)))
    assert float(losses["loss_cls"].detach()) == 0 and losses["kd_student/class"] > 0


def test_a_placement_moves_the_students_queries_and_not_the_teachers():
    model = pair(sampler=SpecificSampler(), query_placement=AtAnswers(shift=0, scale=0))
    calls = {}
    for name in ("teacher", "student"):
        detector = getattr(model, name)
        decode = detector.decode
        detector.decode = lambda memory, queries, name=name, decode=decode: calls.setdefault(
            name, (queries, decode(memory, queries))
        )[1]
    step(model)
    (asked_teacher, answers), (asked_student, _) = calls["teacher"], calls["student"]
    assert torch.equal(asked_student.boxes, answers.boxes[-1])
    assert not torch.equal(asked_teacher.boxes, asked_student.boxes)
    assert asked_student.groups == asked_teacher.groups == {"specific": 6}
    assert asked_student.content is None and not asked_student.boxes.requires_grad


@pytest.mark.parametrize("family", BOXES)
def test_a_transformer_too_can_be_asked_at_the_teachers_answers(family):
    """Its own learned content is used then, so a teacher of another width needs no projection."""
    teacher = tiny_detector(family, embed_dim=32)
    options = {"sampler": SpecificSampler(), "query_placement": AtAnswers()}
    model = tiny_distiller(tiny_detector(family), teacher, **options)
    losses = step(model)
    assert model.projection is None and losses["kd_specific/class"] > 0
    sum(losses.values()).backward()


@pytest.mark.parametrize("family", BOXES)
def test_a_region_detector_teaches_a_transformer(family):
    stock = tiny_faster_rcnn()
    before = copy.deepcopy(stock.state_dict())
    model = tiny_distiller(tiny_detector(family), RegionDetector(stock, num_queries=7))
    losses = step(model)
    assert all(torch.isfinite(value) for value in losses.values())
    sum(losses.values()).backward()
    assert all(p.grad is None for p in stock.parameters()) and not stock.training
    assert_same_tensors(stock.state_dict(), before)
    assert model.projection is None
