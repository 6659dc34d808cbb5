"""Any teacher with any student: other family, depth, width and number of queries."""

import pytest
import torch

from kddetr import KDDETR
from kddetr.errors import UsageError
from kddetr.losses import WeightedMeanLoss
from kddetr.points import GeneralSampler, JointSampler, SpecificSampler
from tests.tiny import FAMILIES, tiny_batch, tiny_detector

# Queries that are learned embeddings in one family, and boxes in the others.
EMBEDDINGS = ("deformable_detr", "deformable_detr_plain")


def pair(teacher: str, student: str, *, width: int = 32) -> KDDETR:
    return KDDETR(
        student=tiny_detector(student, seed=1, decoder_layers=2, num_queries=5),
        teacher=tiny_detector(teacher, seed=2, decoder_layers=3, num_queries=7, embed_dim=width),
        sampler=JointSampler([GeneralSampler(count=4), SpecificSampler()]),
        loss=WeightedMeanLoss(),
    )


@pytest.mark.parametrize("student", FAMILIES)
@pytest.mark.parametrize("teacher", FAMILIES)
def test_any_teacher_with_any_student(teacher, student):
    if (teacher in EMBEDDINGS) != (student in EMBEDDINGS):
        with pytest.raises(UsageError, match="of the same kind") as error:
            pair(teacher, student)
        assert str(error.value).count(". ") == 0
        return
    model = pair(teacher, student).train()
    asked = []
    decode = model.student.decode
    model.student.decode = lambda memory, queries: asked.append(queries) or decode(memory, queries)
    points = []
    model.ask_teacher, ask = lambda *x: points.append(ask(*x)) or points[-1], model.ask_teacher
    losses = model(tiny_batch())
    ((wanted, answers),) = points
    assert torch.equal(asked[-1].boxes, wanted.boxes)  # where both look is the same to the bit
    assert asked[-1].groups == wanted.groups == {"general": 4, "specific": 7}
    assert answers.num_layers == 3
    assert all(torch.isfinite(value) for value in losses.values())
    sum(losses.values()).backward()
    silent = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert silent == []


@pytest.mark.parametrize("family", FAMILIES)
def test_learned_content_crosses_widths_by_a_projection_of_the_distiller(family):
    model = pair(family, family)
    learned = model.student.query_parts
    assert set(model.projection or ()) == set(learned)
    plain = set(tiny_detector(family).state_dict())
    assert set(model.deployable.state_dict()) == plain
    assert pair(family, family, width=16).projection is None


def test_dino_points_carry_the_teachers_content():
    model = pair("dino", "dino", width=16).train()
    asked = []
    decode = model.student.decode
    model.student.decode = lambda memory, queries: asked.append(queries) or decode(memory, queries)
    model(tiny_batch())
    content = model.teacher.query_source.content
    general, specific = asked[-1].content.split([4, 7], dim=1)
    assert torch.equal(specific, content.expand_as(specific))
    assert all(any(torch.equal(row, known) for known in content) for row in general[0])


def test_points_and_denoising_never_see_each_other():
    """The detection pass knows nothing of the points, and no pass of points holds noised boxes."""
    model = pair("dino", "dino").train()
    groups = []
    decode = model.student.decode
    model.student.decode = lambda memory, q: groups.append(set(q.groups)) or decode(memory, q)
    torch.manual_seed(0)
    together = model(tiny_batch())
    assert groups[-1] == {"general", "specific"}
    assert "own" in groups[0] and any(name.startswith("denoising") for name in groups[0])
    torch.manual_seed(0)
    alone = model.student(tiny_batch())
    for name, value in alone.items():
        assert torch.equal(value, together[name]), name
