"""Where a detector's own queries come from, and how it makes queries of other questions.

A query source maps a memory to the detector's own queries; its ``fresh`` makes unlearned ones at
given boxes, its ``adopt`` asks another detector's. One rule for both: boxes are boxes for
everybody, learned content goes with the box where the kind has any, and whatever is computed from
the box is computed by the detector that is asked.

``parts`` says how wide each learned part is that the queries carry, "content" or "position"; empty:
they are boxes alone.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from ..boxes import inverse_sigmoid
from ..structures import Queries, UsageError
from .memory import Memory
from .position_encoding import proposal_sine_embedding
from .proposals import ProposalHead


class AnchorQueries(nn.Module):
    """Learned anchor boxes; the content starts from zero (DAB-DETR).

    Args:
        count: N.
        size: initial width and height, as a fraction of the image's; None: N(0, 1) in logits, as
            published. Short trainings on small objects gain much from starting at their size.
    """

    parts: Mapping[str, int] = {}

    def __init__(self, count: int, *, size: float | None = None) -> None:
        super().__init__()
        self.anchors = nn.Parameter(torch.randn(count, 4))
        with torch.no_grad():
            # Uniform over the image, detrex's default and an option of the authors' project.
            self.anchors[:, :2] = inverse_sigmoid(torch.rand(count, 2))
            if size is not None:
                self.anchors[:, 2:] = inverse_sigmoid(torch.tensor(size))

    def forward(self, memory: Memory) -> Queries:
        """The anchors as (B, N, 4) boxes."""
        boxes = self.anchors.float().sigmoid()
        return Queries(boxes.expand(len(memory.tokens), -1, -1))

    def fresh(self, memory: Memory, boxes: Tensor) -> Queries:
        """(B, N, 4) boxes, or (1, N, 4) shared by the images: a query is a box and nothing else."""
        return Queries(_for_all(boxes, memory))

    def adopt(self, memory: Memory, points: Queries) -> Queries:
        """The boxes, whatever comes with them."""
        return boxes_alone(points)


class EmbeddingQueries(nn.Module):
    """Learned content and position; the place is a linear function of the position (Deformable
    DETR).

    Args:
        count: N.
        width: C.
    """

    def __init__(self, count: int, *, width: int) -> None:
        super().__init__()
        self.parts = {"content": width, "position": width}
        self.embedding = nn.Embedding(count, 2 * width)
        self.reference = nn.Linear(width, 2)
        nn.init.xavier_uniform_(self.reference.weight)
        nn.init.zeros_(self.reference.bias)

    def forward(self, memory: Memory) -> Queries:
        """Content, position (B, N, C) each and centres (B, N, 2)."""
        return self._queries(self.embedding.weight.expand(len(memory.tokens), -1, -1))

    def fresh(self, memory: Memory, boxes: Tensor) -> Queries:
        """Embeddings like a new table's, N(0, 1), at the centres that this detector gives them.

        Of ``boxes`` (B, N, 4), or (1, N, 4) for one set that all images share, only the shape
        counts: such a query is not made of a box.
        """
        table = torch.randn(len(boxes), boxes.shape[1], self.embedding.weight.shape[1])
        return self._queries(_for_all(table, memory))

    def adopt(self, memory: Memory, points: Queries) -> Queries:
        """Another one-stage Deformable DETR's embeddings, at the centres they had there."""
        if points.position is None or points.boxes.shape[-1] != 2:
            raise UsageError(
                "These points are boxes, and a one-stage Deformable DETR makes its queries of"
                " learned embeddings: take the points of another one-stage Deformable DETR, or"
                " build this one with two_stage=True or anchor_queries=True."
            )
        return points

    def _queries(self, embedding: Tensor) -> Queries:
        position, content = embedding.chunk(2, dim=-1)
        return Queries(self.reference(position).sigmoid(), content=content, position=position)


class ProposalQueries(nn.Module):
    """The best proposals; content and position are computed from the box (two-stage Deformable
    DETR).

    Args:
        proposals: see :class:`ProposalHead`.
        width: C.
    """

    parts: Mapping[str, int] = {}  # content and position are functions of the box

    def __init__(self, proposals: ProposalHead, *, width: int) -> None:
        super().__init__()
        self.proposals = proposals
        self.features = width // 2
        self.embed = nn.Linear(2 * width, 2 * width)
        self.embed_norm = nn.LayerNorm(2 * width)
        nn.init.xavier_uniform_(self.embed.weight)

    def forward(self, memory: Memory) -> Queries:
        """Boxes (B, N, 4), position and content (B, N, C) each."""
        return self.fresh(memory, self.proposals(memory).boxes.detach())

    def fresh(self, memory: Memory, boxes: Tensor) -> Queries:
        """(B, N, 4) boxes, or (1, N, 4) shared by the images, embedded as if they were proposed."""
        boxes = _for_all(boxes, memory)
        embedding = self.embed_norm(self.embed(proposal_sine_embedding(boxes, self.features)))
        position, content = embedding.chunk(2, dim=-1)
        return Queries(boxes, content=content, position=position)

    def adopt(self, memory: Memory, points: Queries) -> Queries:
        """The boxes, embedded by this detector."""
        _need_boxes(points)
        own = self.fresh(memory, points.boxes)
        return replace(points, content=own.content, position=own.position)


class MixedQueries(nn.Module):
    """Boxes of the best proposals, learned content: mixed query selection (DINO, section 3.4).

    Args:
        proposals: see :class:`ProposalHead`.
        width: C.
    """

    def __init__(self, proposals: ProposalHead, *, width: int) -> None:
        super().__init__()
        self.parts = {"content": width}
        self.proposals = proposals
        self.content = nn.Parameter(torch.empty(proposals.count, width))
        nn.init.xavier_uniform_(self.content)

    def forward(self, memory: Memory) -> Queries:
        """Boxes (B, N, 4), without a graph, and content (B, N, C): the best proposal gets row 0."""
        boxes = self.proposals(memory).boxes.detach()
        return Queries(boxes, content=_for_all(self.content[None, : boxes.shape[1]], memory))

    def fresh(self, memory: Memory, boxes: Tensor) -> Queries:
        """(B, N, 4) boxes, or (1, N, 4) for all images, each with a random row of the content."""
        rows = torch.randint(len(self.content), boxes.shape[:2])
        content = self.content[rows.to(self.content.device)]
        return Queries(_for_all(boxes, memory), content=_for_all(content, memory))

    def adopt(self, memory: Memory, points: Queries) -> Queries:
        """The boxes with the content that was learned for them; else with random rows of its own.

        A content that is computed from the box beside a position (two-stage Deformable DETR) means
        nothing here and is left behind.
        """
        _need_boxes(points)
        if points.content is not None and points.position is None:
            return points
        own = self.fresh(memory, points.boxes)
        return replace(points, content=own.content, position=None)


def boxes_alone(points: Queries) -> Queries:
    """The same questions without what another detector had in mind with them.

    Raises:
        UsageError: they are no boxes.
    """
    _need_boxes(points)
    return replace(points, content=None, position=None)


def _for_all(values: Tensor, memory: Memory) -> Tensor:
    """(B, N, D), or (1, N, D) that all images share, as (B, N, D) where the memory is."""
    return values.to(memory.tokens.device).expand(len(memory.tokens), -1, -1)


def _need_boxes(points: Queries) -> None:
    if points.boxes.shape[-1] != 4:
        raise UsageError(
            "These points have a centre but no size, as the queries of a one-stage Deformable DETR,"
            " and this detector's queries are boxes: take the points of a detector whose queries"
            " are boxes (DAB-DETR, DINO, two-stage Deformable DETR)."
        )
