"""Self-attention between query groups: blocks of groups give what one attention under a full mask
gives.
"""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from kddetr.detectors.detr.attention import ConditionalSelfAttention, GroupMask, SelfAttention
from kddetr.structures import Queries

EMBED_DIM = 16
IMAGES = 2
GROUPS = {"denoising_0": 3, "denoising_1": 2, "own": 4}
DENOISING = dict.fromkeys(("denoising_0", "denoising_1"), ("own",))  # what attends to what


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, atol=1e-6, rtol=0)


@pytest.fixture(params=[SelfAttention, ConditionalSelfAttention])
def attention(request):
    torch.manual_seed(0)
    return request.param(embed_dim=EMBED_DIM, num_heads=4).eval()


def queries(groups: dict[str, int], attends_to: dict | None = None) -> Queries:
    boxes = torch.rand(IMAGES, sum(groups.values()), 4)
    return Queries(boxes, groups=groups, attends_to=attends_to or {})


def embeddings(count: int) -> tuple[Tensor, Tensor]:
    """Content and position of so many queries."""
    return torch.randn(IMAGES, count, EMBED_DIM), torch.randn(IMAGES, count, EMBED_DIM)


def forbidden(asked: Queries) -> Tensor:
    """(N, N) True where the query of the row may not attend to the query of the column, by the
    rule that :class:`Queries` states.
    """
    names = [name for name, size in asked.groups.items() for _ in range(size)]
    allowed = [
        [column == row or column in asked.attends_to.get(row, ()) for column in names]
        for row in names
    ]
    return ~torch.tensor(allowed)


@pytest.mark.parametrize(
    ("groups", "attends_to"),
    [
        ({"a": 5}, {}),
        ({"a": 1, "b": 1}, {}),
        ({"a": 4, "b": 7, "c": 1}, {}),
        (GROUPS, DENOISING),
        ({"own": 3, "a": 2, "b": 2}, {"a": ("own", "b"), "b": ("a",)}),
    ],
)
def test_one_attention_under_the_full_mask_gives_the_same(attention, groups, attends_to):
    asked = queries(groups, attends_to)
    content, position = embeddings(len(asked))
    mask = forbidden(asked)
    full = SimpleNamespace(attend=lambda function, *tensors: function(*tensors, mask))
    close(attention(content, position, GroupMask(asked)), attention(content, position, full))


def test_grouped_is_separate(attention):
    """Every group gives what it gives in a pass of its own."""
    asked = queries({"a": 4, "b": 3})
    content, position = embeddings(7)
    together = attention(content, position, GroupMask(asked)).split([4, 3], dim=1)
    parts = zip(content.split([4, 3], dim=1), position.split([4, 3], dim=1), strict=True)
    for output, part in zip(together, parts, strict=True):
        close(output, attention(*part, GroupMask(queries({"alone": part[0].shape[1]}))))


@pytest.mark.parametrize(
    ("changed", "differ"),
    [
        ("own", {"denoising_0", "denoising_1", "own"}),
        ("denoising_0", {"denoising_0"}),
        ("denoising_1", {"denoising_1"}),
    ],
)
def test_denoising_groups_attend_to_the_own_queries_but_not_the_reverse(attention, changed, differ):
    group_mask = GroupMask(queries(GROUPS, DENOISING))
    content, position = embeddings(9)
    before = attention(content, position, group_mask).split(list(GROUPS.values()), dim=1)
    with torch.no_grad():
        content.split(list(GROUPS.values()), dim=1)[list(GROUPS).index(changed)].normal_()
    after = attention(content, position, group_mask).split(list(GROUPS.values()), dim=1)
    for name, a, b in zip(GROUPS, before, after, strict=True):
        assert torch.allclose(a, b, atol=1e-6) == (name not in differ), name


def test_groups_without_exceptions_are_blocks_without_a_mask():
    plain, denoising = GroupMask(queries({"a": 4, "b": 3})), GroupMask(queries(GROUPS, DENOISING))
    assert plain.sizes == [4, 3] and plain.masks == [None, None]
    assert denoising.sizes == [9] and denoising.masks[0].shape == (9, 9)
    assert GroupMask(Queries(torch.rand(1, 5, 4))).sizes == [5]
