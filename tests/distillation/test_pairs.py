"""Any teacher with any student: of another family, depth, width and number of queries."""

import pytest
import torch

from kddetr import KDDETR
from kddetr.errors import UsageError
from kddetr.structures import Queries
from tests.tiny import FAMILIES, tiny_batch, tiny_detector, tiny_distiller

# Queries that are learned embeddings in these families, and boxes in the others.
EMBEDDINGS = ("deformable_detr", "deformable_detr_plain")


def pair(teacher: str, student: str, *, width: int = 32) -> KDDETR:
    return tiny_distiller(
        tiny_detector(student, seed=1, num_queries=5),
        tiny_detector(teacher, seed=2, decoder_layers=3, num_queries=7, embed_dim=width),
    )


def recorded(detector) -> list:
    """A list that will hold the queries of every call of the detector's ``decode``."""
    queries, decode = [], detector.decode
    detector.decode = lambda memory, asked: queries.append(asked) or decode(memory, asked)
    return queries


@pytest.mark.parametrize("student", FAMILIES)
@pytest.mark.parametrize("teacher", FAMILIES)
def test_any_teacher_with_any_student(teacher, student):
    if (teacher in EMBEDDINGS) != (student in EMBEDDINGS):
        with pytest.raises(UsageError, match="of the same kind") as error:
            pair(teacher, student)
        assert str(error.value).count(". ") == 0
        return
    model = pair(teacher, student)
    of_student, of_teacher = recorded(model.student), recorded(model.teacher)
    losses = model(tiny_batch())
    assert torch.equal(of_student[-1].boxes, of_teacher[-1].boxes)
    assert of_student[-1].groups == of_teacher[-1].groups == {"general": 4, "specific": 7}
    assert all(torch.isfinite(value) for value in losses.values())
    sum(losses.values()).backward()
    untrained = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert untrained == []


@pytest.mark.parametrize("family", FAMILIES)
def test_learned_embeddings_are_projected_between_widths(family):
    """The projection belongs to the distiller, so the student's state dict stays the plain one."""
    model = pair(family, family)
    assert set(model.projection or ()) == set(model.student.query_parts)
    assert set(model.deployable.state_dict()) == set(tiny_detector(family).state_dict())
    assert pair(family, family, width=16).projection is None


def test_dino_points_carry_the_teachers_content():
    model = pair("dino", "dino", width=16)
    asked = recorded(model.student)
    model(tiny_batch())
    content = model.teacher.query_source.content
    general, specific = asked[-1].content.split([4, 7], dim=1)
    assert torch.equal(specific, content.expand_as(specific))
    assert all(any(torch.equal(row, known) for known in content) for row in general[0])


def test_points_and_denoising_queries_are_decoded_apart():
    """No pass has both, so points change none of the losses of detection and denoising."""
    model = pair("dino", "dino")
    asked = recorded(model.student)
    torch.manual_seed(0)
    together = model(tiny_batch())
    groups = [set(queries.groups) for queries in asked]
    assert groups[-1] == {"general", "specific"}
    assert "own" in groups[0] and any(name.startswith("denoising") for name in groups[0])
    torch.manual_seed(0)
    alone = model.student(tiny_batch())
    for name, value in alone.items():
        assert torch.equal(value, together[name]), name


def test_a_projection_leaves_points_without_content_alone():
    """A sampler may return boxes without embeddings also where the teacher learns content."""
    model = pair("dino", "dino").train()
    model.sampler = lambda teacher, student: Queries(torch.rand(2, 5, 4)).named("boxes")
    losses = model(tiny_batch())
    assert all(torch.isfinite(value) for value in losses.values())
