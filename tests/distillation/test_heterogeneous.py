"""A transformer teaches a region detector through the protocol alone, and the other way round."""

import copy

import pytest
import torch
from detectron2.utils.events import EventStorage
from torch.nn import functional as F

from kddetr import KDDETR
from kddetr.detectors import RegionDetector
from kddetr.errors import UsageError
from kddetr.losses import EqualWeight, KLWithBackground, WeightedMeanLoss
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
from kddetr.teachers import CachedEncoder
from tests.stock_models import tiny_c4, tiny_cascade_rcnn, tiny_faster_rcnn
from tests.tiny import FAMILIES, tiny_batch, tiny_detector

SIZES = ((64, 80), (56, 72))
BOXES = [family for family in FAMILIES if not family.startswith("deformable_detr")]
BOXES.append("deformable_detr_two_stage")


def all_points() -> JointSampler:
    return JointSampler(
        [GeneralSampler(count=4), SpecificSampler(), StudentSampler(count=5), NearbySampler()]
    )


def pair(teacher="dab_detr", stock=tiny_faster_rcnn, **options) -> KDDETR:
    options = {"sampler": all_points(), "loss": WeightedMeanLoss(), **options}
    return KDDETR(
        student=RegionDetector(stock()), teacher=tiny_detector(teacher).eval(), **options
    ).train()


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
    learning = {n for n, p in model.student.named_parameters() if p.grad is not None}
    for part in ("cls_score", "bbox_pred", "backbone"):
        assert any(part in name for name in learning)
    # The proposals are points, not something that points are learned through.
    assert not any("proposal_generator" in name for name in learning)
    assert all(torch.equal(v, before[k]) for k, v in model.teacher.state_dict().items())


@pytest.mark.parametrize("teacher", ["deformable_detr", "deformable_detr_plain"])
def test_learned_embeddings_teach_by_their_answers_alone(teacher):
    """They are no boxes, but what a detector answers at them is."""
    with pytest.raises(UsageError, match="of the same kind, or ask a student"):
        pair(teacher)
    sampler = JointSampler([GeneralSampler(count=4), SpecificSampler()])
    losses = step(pair(teacher, sampler=sampler, query_placement=AtAnswers()))
    assert all(torch.isfinite(value) for value in losses.values())
    assert {"kd_general/class", "kd_specific/class"} < losses.keys()
    for sampler in (StudentSampler(), NearbySampler()):
        with pytest.raises(UsageError, match="cannot be asked at a box"):
            step(pair(teacher, sampler=sampler, query_placement=AtAnswers()))
    with pytest.raises(UsageError, match="of the same kind"):
        KDDETR(
            student=tiny_detector(teacher),
            teacher=tiny_detector(),
            sampler=sampler,
            loss=WeightedMeanLoss(),
            query_placement=AtAnswers(),
        )


def test_weight_0_is_the_plain_training_bit_for_bit():
    """Against the stock model that never heard of any of this, on its own BGR images."""
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
    for name, value in stock.state_dict().items():
        assert torch.equal(model.student.stock.state_dict()[name], value), name


def test_distillation_leaves_the_models_own_losses_as_they_are():
    with_points, without = step(pair(query_placement=AtAnswers())), step(pair(weight=0.0))
    for name, value in without.items():
        assert torch.equal(with_points[name], value)


def test_the_backbones_run_once_an_image_whoever_asks():
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
    assert runs == {"student": [2], "teacher": [1, 1], "proposals": [1]}  # two sizes, padded later


def test_unlabelled_images_are_distilled():
    model = pair()
    losses = step(model, tiny_batch(SIZES, boxes=(3, None)))
    assert all(torch.isfinite(v) and v > 0 for k, v in losses.items() if k.endswith("class"))
    losses = step(model, tiny_batch(SIZES, boxes=(None, None)))
    assert float(losses["loss_cls"].detach()) == 0 and losses["kd_student/class"] > 0


def asked(model, batch=None):
    batch = batch or tiny_batch(SIZES)
    return (
        EncodedDetector(model.teacher, model.teacher.encode(batch)),
        EncodedDetector(model.student, model.student.encode(batch)),
    )


@pytest.mark.parametrize("family", BOXES)
def test_the_students_proposals_go_through_the_teachers_positional_path(family):
    model = pair(family)
    with torch.no_grad():
        teacher, student = asked(model)
        points = StudentSampler(count=5)(teacher, student)
        own = student.queries().boxes[:, :5]
        assert torch.equal(points.boxes, own) and points.groups == {"student": 5}
        answers = teacher.decode(points)
        # A query that the teacher makes of the same box itself.
        same = teacher.decode(teacher.make_queries(own))
        if family != "dino":  # its content is drawn from what it has learned
            assert torch.equal(answers.logits, same.logits)
        moved = teacher.decode(teacher.make_queries((own * 0.5).contiguous()))
        assert not torch.allclose(answers.logits, moved.logits)


def test_student_sampler_takes_what_there_is_and_wants_some():
    teacher, student = asked(pair())
    found = len(student.queries())
    assert StudentSampler(count=10_000)(teacher, student).groups == {"student": found}
    with pytest.raises(ValueError, match="at least 1"):
        StudentSampler(count=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_specific_points_can_be_the_best_few(family):
    teacher = tiny_detector(family).eval()
    asked = EncodedDetector(teacher, teacher.encode(tiny_batch()))
    all_of_them, few = (SpecificSampler(count=n)(asked, asked) for n in (None, 2))
    assert few.groups == {"specific": 2} and all_of_them.groups == {"specific": 6}
    assert torch.equal(few.boxes, all_of_them.boxes[:, :2])
    assert few.content is None or torch.equal(few.content, all_of_them.content[:, :2])
    assert asked.decode(few).logits.shape[2] == 2
    with pytest.raises(ValueError, match="at least 1"):
        SpecificSampler(count=0)


def test_nearby_points_are_near_the_teachers_answers():
    teacher, student = asked(pair())
    answers = teacher.decode(teacher.queries()).boxes[-1]
    exact = NearbySampler(shift=0, scale=0)(teacher, student)
    assert torch.equal(exact.boxes, answers) and exact.groups == {"nearby": 6}
    torch.manual_seed(0)
    first = NearbySampler()(teacher, student)
    second = NearbySampler()(teacher, student)
    torch.manual_seed(0)
    again = NearbySampler()(teacher, student)
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


def test_placement_moves_the_student_and_not_the_teacher():
    model = pair(sampler=SpecificSampler(), query_placement=AtAnswers(shift=0, scale=0))
    seen = {}
    for name in ("teacher", "student"):
        detector = getattr(model, name)
        decode = detector.decode
        detector.decode = lambda memory, queries, name=name, decode=decode: seen.setdefault(
            name, (queries, decode(memory, queries))
        )[1]
    step(model)
    (asked_teacher, answers), (asked_student, _) = seen["teacher"], seen["student"]
    assert torch.equal(asked_student.boxes, answers.boxes[-1])
    assert not torch.equal(asked_teacher.boxes, asked_student.boxes)
    assert asked_student.groups == asked_teacher.groups == {"specific": 6}
    assert asked_student.content is None and not asked_student.boxes.requires_grad


@pytest.mark.parametrize("family", BOXES)
def test_a_transformer_can_be_asked_at_answers_too(family):
    """Whose learned content is of another width than its teacher's, and stays its own."""
    model = KDDETR(
        student=tiny_detector(family),
        teacher=tiny_detector(family, embed_dim=32).eval(),
        sampler=SpecificSampler(),
        loss=WeightedMeanLoss(),
        query_placement=AtAnswers(),
    ).train()
    losses = step(model)
    assert model.projection is None and losses["kd_specific/class"] > 0
    sum(losses.values()).backward()


def test_placement_keeps_the_groups_of_any_points():
    points = Queries(torch.rand(2, 5, 4), content=torch.rand(2, 5, 8), groups={"a": 2, "b": 3})
    answers = Predictions(torch.rand(3, 2, 5, 4), torch.rand(3, 2, 5, 4))
    placed = AtAnswers()(points, answers)
    assert placed.groups == points.groups and placed.content is None
    assert AtAnswers(shift=0, scale=0)(points, answers).boxes.equal(answers.boxes[-1])


def test_the_box_of_the_teachers_class_is_compared():
    """Of a student with a box for every class; its own favourite may still be another one."""
    torch.manual_seed(0)
    groups = {"a": 6}
    logits = torch.randn(1, 2, 6, 3)
    per_class = torch.rand(1, 2, 6, 3, 4) * 0.5 + 0.2
    teacher = Predictions(torch.randn(2, 2, 6, 3), torch.rand(2, 2, 6, 4) * 0.5 + 0.2)
    top = teacher.logits[-1].argmax(-1)
    wanted = per_class[0].gather(2, top[..., None, None].expand(-1, -1, 1, 4))[:, :, 0]
    points = Queries(torch.rand(2, 6, 4), groups=groups)
    loss = WeightedMeanLoss()
    found = loss(Predictions(logits, per_class[..., 0, :], per_class), teacher, points)
    expected = loss(Predictions(logits, wanted[None]), teacher, points)
    assert found == expected
    other = loss(Predictions(logits, per_class[..., 0, :]), teacher, points)
    assert other["kd_a/bbox"] != expected["kd_a/bbox"]


@pytest.mark.parametrize("family", BOXES)
def test_a_region_detector_teaches_a_transformer(family):
    stock = tiny_faster_rcnn()
    before = copy.deepcopy(stock.state_dict())
    model = KDDETR(
        student=tiny_detector(family),
        teacher=RegionDetector(stock, num_queries=7),
        sampler=JointSampler([GeneralSampler(count=4), SpecificSampler()]),
        loss=WeightedMeanLoss(),
    ).train()
    losses = step(model)
    assert all(torch.isfinite(value) for value in losses.values())
    sum(losses.values()).backward()
    assert all(p.grad is None for p in stock.parameters()) and not stock.training
    assert all(torch.equal(v, before[k]) for k, v in stock.state_dict().items())
    assert model.projection is None


def test_a_region_detector_cannot_be_remembered():
    """Its memory is a pyramid, and CachedEncoder keeps tokens."""
    cached = CachedEncoder(RegionDetector(tiny_faster_rcnn()).eval())
    with pytest.raises(UsageError, match="do not cache the encoder"):
        cached.encode(tiny_batch((SIZES[0],), boxes=(1,)))


def test_classes_given_an_object_are_what_the_kl_compares():
    """A softmax with background: its background takes no part in the published KL."""
    scores = torch.randn(1, 2, 5, 4, generator=torch.Generator().manual_seed(0))
    teacher = torch.randn(1, 2, 5, 3, generator=torch.Generator().manual_seed(1))
    loss = WeightedMeanLoss()
    boxes = torch.rand(1, 2, 5, 4)
    z = scores[..., :-1] - scores[..., -1:]
    found = loss.losses_of_group(Predictions(z, boxes), Predictions(teacher, boxes))["class"]
    plain = loss.losses_of_group(Predictions(scores[..., :-1], boxes), Predictions(teacher, boxes))[
        "class"
    ]
    torch.testing.assert_close(found, plain)
    background = WeightedMeanLoss(
        class_loss=KLWithBackground(temperature=1.0), weighting=EqualWeight()
    )
    got = background.losses_of_group(Predictions(z, boxes), Predictions(teacher, boxes))["class"]
    p, q = F.pad(teacher, (0, 1)).softmax(-1), scores.softmax(-1)
    expected = background.class_loss.weight * (p * (p / q).log()).mean()
    torch.testing.assert_close(got, expected)
