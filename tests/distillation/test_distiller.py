"""What KDDETR promises about student, teacher and losses."""

import copy

import pytest
import torch
from detectron2.modeling import META_ARCH_REGISTRY
from torch import nn

from kddetr import KDDETR
from kddetr.errors import UsageError
from kddetr.losses import WeightedMeanLoss
from kddetr.points import SpecificSampler
from tests.tiny import FAMILIES, assert_same_tensors, tiny_batch, tiny_detector, tiny_distiller


def distiller(family="dab_detr", *, dropout=0.0, **options) -> KDDETR:
    student = tiny_detector(family, seed=1, dropout=dropout)
    return tiny_distiller(student, tiny_detector(family, seed=2, decoder_layers=3), **options)


def step(model, batch, seed=0):
    torch.manual_seed(seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = model(batch)
    sum(losses.values()).backward()
    optimizer.step()
    return {name: value.item() for name, value in losses.items()}


def weights(module):
    return copy.deepcopy(module.state_dict())


def test_is_registered():
    assert META_ARCH_REGISTRY.get("KDDETR") is KDDETR


@pytest.mark.parametrize("family", FAMILIES)
def test_a_step_trains_the_student_and_leaves_the_teacher(family):
    model = distiller(family)
    student, teacher = weights(model.student), weights(model.teacher)
    for _ in range(2):
        losses = step(model, tiny_batch())
    assert {n for n in losses if "/" in n} == {
        f"kd_{group}/{term}"
        for group in ("general", "specific")
        for term in ("class", "bbox", "giou")
    }
    assert_same_tensors(weights(model.teacher), teacher)
    changed = [n for n, v in model.student.state_dict().items() if not torch.equal(v, student[n])]
    assert changed


def test_the_teacher_is_frozen_and_in_no_list_of_parameters_or_modules():
    model = distiller()
    trained = {id(p) for p in model.parameters()}
    assert not trained & {id(p) for p in model.teacher.parameters()}
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
    model = distiller(family, weight=0.0, dropout=0.1)
    for i in range(3):
        a, b = step(plain, tiny_batch(seed=i), seed=i), step(model, tiny_batch(seed=i), seed=i)
        assert a == b
    assert_same_tensors(model.deployable.state_dict(), plain.state_dict())


def test_a_teacher_is_needed_unless_the_weight_is_zero():
    parts = {"student": tiny_detector(seed=1), "sampler": SpecificSampler()}
    model = KDDETR(**parts, loss=WeightedMeanLoss(), weight=0.0).float()
    assert model.teacher is None and model.projection is None
    assert not any(name.startswith("kd_") for name in copy.deepcopy(model).train()(tiny_batch()))
    with pytest.raises(UsageError, match=r"weight 0\.5 needs a teacher: give one, or set"):
        KDDETR(**parts, loss=WeightedMeanLoss(), weight=0.5)


def test_the_detection_losses_do_not_depend_on_the_points():
    plain = tiny_detector("dab_detr", seed=1, dropout=0.1).train()
    model = distiller("dab_detr", dropout=0.1)
    torch.manual_seed(0)
    wanted = plain(tiny_batch())
    torch.manual_seed(0)
    found = model(tiny_batch())
    assert all(torch.equal(wanted[name], found[name]) for name in wanted)


def test_evaluation_uses_the_student_alone():
    model = distiller().eval()
    model.teacher.forward = model.teacher.encode = None
    batch = tiny_batch()
    for a, b in zip(model(batch), model.deployable(batch), strict=True):
        assert torch.equal(a["instances"].scores, b["instances"].scores)


def test_unlabelled_images_are_distilled_and_not_matched():
    model = distiller()
    losses = model(tiny_batch(boxes=(None, None)))
    assert all(losses[name].item() > 0 for name in losses if name.startswith("kd_"))
    assert not any(losses[name].item() for name in losses if name.startswith("loss_"))
    sum(losses.values()).backward()
    labelled = model(tiny_batch(boxes=(3, None)))
    alone = model.student.losses(model.student.encode(tiny_batch()[:1]), tiny_batch()[:1])
    torch.testing.assert_close(labelled["loss_class"], alone["loss_class"])


def test_a_student_equal_to_its_teacher_has_no_distillation_loss():
    model = distiller()
    model.student = copy.deepcopy(model.teacher).requires_grad_(True)
    for module in model.student.modules():
        module.training = module is model.student  # dropout and norms as in the teacher
    points, teacher = model.ask_teacher(tiny_batch(), None)
    student = model.student.decode(model.student.encode(tiny_batch()), points)
    last = model.loss.losses_of_group(student.last(), teacher.last())
    assert last["class"].item() == pytest.approx(0, abs=1e-5)
    assert last["bbox"].item() == pytest.approx(0, abs=5e-6)


def test_student_and_teacher_need_the_same_classes():
    with pytest.raises(UsageError, match="3 classes and the student 5"):
        tiny_distiller(tiny_detector(num_classes=5), tiny_detector())


def test_a_loss_can_be_a_function_and_its_names_get_a_group():
    """Also a name that the student uses too, which would otherwise replace the student's loss."""

    def loss(student, teacher, points):
        assert points.groups == {"general": 4, "specific": 6}
        gap = (student.boxes[-1] - teacher.boxes[-1]).square()
        return {"mine": gap.mean(), "loss_class": gap.sum(), "other/mine": gap.amax()}

    def losses_of(model):
        torch.manual_seed(0)
        return model(tiny_batch())

    plain = losses_of(tiny_detector(seed=1).train())
    half, whole = (losses_of(distiller(loss=loss, weight=weight)) for weight in (0.5, 1.0))
    assert half.keys() - plain.keys() == {"kd/mine", "kd/loss_class", "other/mine"}
    for name, value in half.items():
        expected = plain[name] if name in plain else whole[name] / 2
        torch.testing.assert_close(value, expected)
    assert whole["kd/mine"] > 0


def test_a_module_as_loss_is_called_with_the_points_of_both():
    class Recorder(nn.Module):
        def forward(self, student, teacher, points):
            self.shapes = student.boxes.shape, teacher.boxes.shape, dict(points.groups)
            assert student.boxes.requires_grad and not teacher.boxes.requires_grad
            return {"kd/zero": student.boxes.sum() * 0}

    model = distiller(loss=Recorder())
    model(tiny_batch())
    groups = {"general": 4, "specific": 6}
    assert model.loss.shapes == ((2, 2, 10, 4), (3, 2, 10, 4), groups)


def test_a_distillation_loss_may_not_replace_a_loss_of_the_student():
    model = distiller(loss=lambda *_: {"aux/first": torch.zeros(())})
    model.student.losses = lambda memory, inputs: {"aux/first": torch.zeros(())}
    with pytest.raises(UsageError, match="'aux/first', which is already the name of another loss"):
        model(tiny_batch())


@pytest.mark.parametrize("family", FAMILIES)
def test_points_that_are_asked_of_the_last_layer_give_the_loss_of_that_layer(family):
    def losses(**options) -> dict[str, float]:
        model = distiller(family, **options)
        torch.manual_seed(3)
        return {name: value.item() for name, value in model(tiny_batch()).items() if "/" in name}

    class Sliced(WeightedMeanLoss):
        """Of all layers that were decoded, as a forward of one's own gets them, only the last is
        compared.
        """

        def forward(self, student, teacher, points):
            assert student.num_layers == 2 and teacher.num_layers == 3
            return super().forward(student.last(), teacher, points)

    found = losses(loss=WeightedMeanLoss(student_layers="last"))
    assert found == pytest.approx(losses(loss=Sliced()), rel=1e-4)


def test_heads_that_no_loss_compares_are_not_computed_at_the_points():
    model = distiller("deformable_detr", loss=WeightedMeanLoss(student_layers="last"))
    ran = {"student": [], "teacher": []}
    for name, detector in (("student", model.student), ("teacher", model.teacher)):
        for i, head in enumerate(detector.decoder.class_heads):
            head.register_forward_hook(lambda *_, name=name, i=i: ran[name].append(i))
    model(tiny_batch())
    assert ran == {"student": [0, 1, 1], "teacher": [2]}  # the student's own queries come first
