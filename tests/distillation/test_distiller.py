"""The invariants of distillation at shared points."""

import copy

import pytest
import torch
from detectron2.modeling import META_ARCH_REGISTRY

from kddetr import KDDETR, Queries
from kddetr.losses import WeightedMeanLoss
from kddetr.points import GeneralSampler, JointSampler, SpecificSampler
from kddetr.structures import EncodedDetector
from tests.tiny import FAMILIES, tiny_batch, tiny_detector


def both(count=4, **options):
    return JointSampler([GeneralSampler(count=count, **options), SpecificSampler()])


def distiller(family="dab_detr", *, weight=1.0, sampler=None, loss=None, **student) -> KDDETR:
    return KDDETR(
        student=tiny_detector(family, seed=1, **student),
        teacher=tiny_detector(family, seed=2, decoder_layers=3),
        sampler=sampler or both(),
        loss=loss or WeightedMeanLoss(),
        weight=weight,
    )


def step(model, batch, lr=0.1, seed=0):
    torch.manual_seed(seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    losses = model(batch)
    sum(losses.values()).backward()
    optimizer.step()
    return {name: value.item() for name, value in losses.items()}


def weights(module):
    return copy.deepcopy(module.state_dict())


def assert_equal(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


def test_is_registered():
    assert META_ARCH_REGISTRY.get("KDDETR") is KDDETR


@pytest.mark.parametrize("family", FAMILIES)
def test_a_step_trains_the_student_and_leaves_the_teacher(family):
    model = distiller(family).train()
    student, teacher = weights(model.student), weights(model.teacher)
    for _ in range(2):
        losses = step(model, tiny_batch())
    assert {n for n in losses if "/" in n} == {
        f"kd_{group}/{term}"
        for group in ("general", "specific")
        for term in ("class", "bbox", "giou")
    }
    assert_equal(weights(model.teacher), teacher)
    changed = [n for n, v in model.student.state_dict().items() if not torch.equal(v, student[n])]
    assert changed


def test_the_teacher_is_present_but_not_ours():
    model = distiller()
    ours = {id(p) for p in model.parameters()}
    assert not ours & {id(p) for p in model.teacher.parameters()}
    assert all(name.startswith("student.") for name in model.state_dict())
    assert model.teacher not in set(model.modules())
    for mode in (True, False, True):
        model.train(mode)
        assert not any(m.training for m in model.teacher.modules())
        assert model.student.training is mode
    assert not any(p.requires_grad for p in model.teacher.parameters())
    model.double()
    assert next(model.teacher.parameters()).dtype == torch.float64
    assert copy.deepcopy(model).teacher is not model.teacher


@pytest.mark.parametrize("family", FAMILIES)
def test_weight_zero_is_the_plain_student_bit_for_bit(family):
    plain = tiny_detector(family, seed=1, dropout=0.1).train()
    model = distiller(family, weight=0.0, dropout=0.1).train()
    for i in range(3):
        a, b = step(plain, tiny_batch(seed=i), seed=i), step(model, tiny_batch(seed=i), seed=i)
        assert a == b
    assert_equal(plain.state_dict(), model.deployable.state_dict())


def test_the_detection_loss_does_not_know_of_the_points():
    plain = tiny_detector("dab_detr", seed=1, dropout=0.1).train()
    model = distiller("dab_detr", dropout=0.1).train()
    torch.manual_seed(0)
    wanted = plain(tiny_batch())
    torch.manual_seed(0)
    found = model(tiny_batch())
    assert all(torch.equal(wanted[name], found[name]) for name in wanted)


def test_evaluation_is_the_student_alone():
    model = distiller().eval()
    model.teacher.forward = None
    batch = tiny_batch()
    for a, b in zip(model(batch), model.deployable(batch), strict=True):
        assert torch.equal(a["instances"].scores, b["instances"].scores)


def test_unlabelled_images_are_distilled_and_not_matched():
    model = distiller().train()
    losses = model(tiny_batch(boxes=(None, None)))
    assert all(losses[name].item() > 0 for name in losses if name.startswith("kd_"))
    assert not any(losses[name].item() for name in losses if name.startswith("loss_"))
    sum(losses.values()).backward()
    labelled = model(tiny_batch(boxes=(3, None)))
    alone = model.student.losses(model.student.encode(tiny_batch()[:1]), tiny_batch()[:1])
    torch.testing.assert_close(labelled["loss_class"], alone["loss_class"])


def test_a_teacher_distilled_into_itself_has_nothing_to_say():
    model = distiller()
    model.student = copy.deepcopy(model.teacher).requires_grad_(True)
    for module in model.student.modules():
        module.training = module is model.student  # dropout and norms as in the teacher
    model.training = True
    losses = model(tiny_batch())
    student, teacher = _answers(model)
    last = model.loss.losses_of_group(student.last(), teacher.last())
    assert last["class"].item() == pytest.approx(0, abs=1e-5)
    assert last["bbox"].item() == pytest.approx(0, abs=5e-6)
    assert losses["kd_general/class"] >= 0


def _answers(model):
    points, wanted = model.ask_teacher(tiny_batch(), None)
    found = model.student.decode(model.student.encode(tiny_batch()), points)
    return found, wanted


def test_classes_must_agree():
    with pytest.raises(ValueError, match="3 classes and the student 5"):
        KDDETR(
            student=tiny_detector(num_classes=5),
            teacher=tiny_detector(),
            sampler=both(),
            loss=WeightedMeanLoss(),
        )


def test_general_points_are_new_each_step_and_reproducible():
    teacher = tiny_detector().eval()
    asked = EncodedDetector(teacher, teacher.encode(tiny_batch()))
    for distribution in ("uniform", "normal_logit"):
        sampler = GeneralSampler(count=50, distribution=distribution)
        torch.manual_seed(0)
        first, second = sampler(asked, asked), sampler(asked, asked)
        assert not torch.equal(first.boxes, second.boxes)
        torch.manual_seed(0)
        assert torch.equal(sampler(asked, asked).boxes, first.boxes)
        assert torch.equal(first.boxes[0], first.boxes[1])  # one set for all images
        assert first.boxes.min() >= 0 and first.boxes.max() <= 1
    own = GeneralSampler(count=50, shared=False)(asked, asked)
    assert not torch.equal(own.boxes[0], own.boxes[1])


def test_uniform_boxes_cover_the_image_and_logit_boxes_its_middle():
    teacher = tiny_detector().eval()
    asked = EncodedDetector(teacher, teacher.encode(tiny_batch()))
    spread = {}
    for name in ("uniform", "normal_logit"):
        spread[name] = GeneralSampler(count=4000, distribution=name)(asked, asked).boxes.std()
    assert float(spread["uniform"]) == pytest.approx(12**-0.5, abs=0.01)
    assert spread["normal_logit"] < spread["uniform"] * 0.8


def test_specific_points_are_the_teachers_queries():
    for family in FAMILIES:
        teacher = tiny_detector(family).eval()
        memory = teacher.encode(tiny_batch())
        points = SpecificSampler()(EncodedDetector(teacher, memory), None)
        own = teacher.queries(memory)
        assert points.groups == {"specific": 6} and not points.boxes.requires_grad
        assert torch.equal(points.boxes, own.boxes)
        for name in ("content", "position"):
            theirs, ours = getattr(own, name), getattr(points, name)
            assert (theirs is None and ours is None) or torch.equal(theirs, ours)


def test_samplers_refuse_nonsense():
    with pytest.raises(ValueError, match="uniform or normal_logit"):
        GeneralSampler(distribution="gauss")
    with pytest.raises(ValueError, match="at least 1"):
        GeneralSampler(count=0)
    with pytest.raises(ValueError, match="at least one"):
        JointSampler([])
    teacher = tiny_detector()
    asked = EncodedDetector(teacher, teacher.encode(tiny_batch()))
    with pytest.raises(ValueError, match="groups with names of its own"):
        JointSampler([SpecificSampler(), SpecificSampler()])(asked, asked)
    with pytest.raises(ValueError, match="add up to 2 queries"):
        Queries(torch.rand(1, 3, 4), groups={"a": 2})
