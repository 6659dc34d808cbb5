"""Query sources: where a detection transformer's own queries come from, and how it makes others.

A query source is a module that maps a memory to the detector's own queries. The same rule holds for
all kinds: boxes stay as they are, a learned content embedding goes with its box where the kind has
one, and what is computed from a box is computed by the detector that is asked.

``query_parts`` gives the width of each learned embedding, "content" or "position", that the queries
carry beside their boxes.

Shape letters: B images, N queries, C embedding width.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from ...boxes import inverse_sigmoid
from ...errors import UsageError
from ...ranges import fraction, one_of, positive
from ...structures import Queries
from ...transfer import to_device
from ..batch import MADE_OF_BOXES, for_all_images
from .memory import Memory
from .position_encoding import box_sine_embedding
from .proposals import ProposalHead

CENTRES = ("uniform", "normal_logit")  # of initial anchors


class QuerySource(nn.Module):
    """The base of the query sources, for queries that are made of boxes.

    Args:
        proposals: the head whose proposals become queries; None where there is none.
    """

    query_parts: Mapping[str, int] = {}

    def __init__(self, proposals: ProposalHead | None = None) -> None:
        super().__init__()
        self.proposals = proposals

    def make(self, memory: Memory, boxes: Tensor) -> Queries:
        """Queries at (B, N, 4) boxes, or at (1, N, 4) boxes that all images share."""
        raise NotImplementedError

    def convert(self, memory: Memory, points: Queries) -> Queries:
        """The boxes of another detector's queries with embeddings of this kind, in the same groups;
        a UsageError where the queries have no sizes.
        """
        points.require_sizes()
        own = self.make(memory, points.boxes)
        return replace(points, content=own.content, position=own.position)

    def random(self, memory: Memory, images: int, count: int) -> Queries:
        """(B, count, ...) queries with random embeddings; a UsageError for a kind made of boxes."""
        raise UsageError(MADE_OF_BOXES)


class AnchorQueries(QuerySource):
    """Learned anchor boxes, whose content starts from zero (DAB-DETR).

    Args:
        count: N.
        size: initial width and height, as a fraction of the image's; None: the sigmoid of N(0, 1),
            as published. Short trainings on small objects gain much from anchors of the objects'
            size.
        centres: how the initial centres are drawn. "uniform": over the image, detrex's default and
            an option of the authors' project. "normal_logit": the sigmoid of N(0, 1), the default
            of the authors' project and what the published KD-DETR code does.

    Raises:
        ValueError: the size is not above 0 and at most 1, or the centres are something else.
    """

    def __init__(self, count: int, *, size: float | None = None, centres: str = "uniform") -> None:
        super().__init__()
        one_of(CENTRES, anchor_centres=centres)
        if size is not None:
            fraction(anchor_size=size)
            positive(anchor_size=size)
        self.anchors = nn.Parameter(torch.randn(count, 4))
        with torch.no_grad():
            if centres == "uniform":
                self.anchors[:, :2] = inverse_sigmoid(torch.rand(count, 2))
            if size is not None:
                self.anchors[:, 2:] = inverse_sigmoid(torch.tensor(size))

    def forward(self, memory: Memory) -> Queries:
        """The anchors as (B, N, 4) boxes."""
        boxes = self.anchors.float().sigmoid()
        return Queries(boxes.expand(memory.tokens.shape[0], -1, -1))

    def make(self, memory: Memory, boxes: Tensor) -> Queries:
        """Boxes without embeddings."""
        return Queries(_for_all_images(boxes, memory))


class EmbeddingQueries(QuerySource):
    """Learned content and positional embeddings; the reference point is a linear function of the
    latter (one-stage Deformable DETR).
    """

    def __init__(self, count: int, *, embed_dim: int) -> None:
        super().__init__()
        self.query_parts = {"content": embed_dim, "position": embed_dim}
        self.embedding = nn.Embedding(count, 2 * embed_dim)
        self.reference = nn.Linear(embed_dim, 2)
        nn.init.xavier_uniform_(self.reference.weight)
        nn.init.zeros_(self.reference.bias)

    def forward(self, memory: Memory) -> Queries:
        """Content and position (B, N, C) and centres (B, N, 2)."""
        return self._queries(self.embedding.weight.expand(memory.tokens.shape[0], -1, -1))

    def make(self, memory: Memory, boxes: Tensor) -> Queries:
        """Refused by a UsageError: a learned embedding cannot be made from a box."""
        raise UsageError(
            "A one-stage Deformable DETR makes its queries of learned embeddings and cannot make a"
            " query at a box: take general and specific points, or another teacher."
        )

    def random(self, memory: Memory, images: int, count: int) -> Queries:
        """Embeddings drawn from N(0, 1), as in a new table, with the centres computed from them."""
        table = torch.randn(images, count, self.embedding.weight.shape[1])
        return self._queries(_for_all_images(table, memory))

    def convert(self, memory: Memory, points: Queries) -> Queries:
        """The embeddings of another one-stage Deformable DETR, with the centres that they had."""
        if points.position is None or points.boxes.shape[-1] != 2:
            raise UsageError(
                "These points are boxes, and a one-stage Deformable DETR makes its queries of"
                " learned embeddings: take the points of another one-stage Deformable DETR, or"
                " build this one with variant=two_stage or variant=anchors."
            )
        return points

    def _queries(self, embedding: Tensor) -> Queries:
        position, content = _halves(embedding)
        return Queries(self.reference(position).sigmoid(), content=content, position=position)


class ProposalQueries(QuerySource):
    """The best proposals; content and position are computed from the box (two-stage Deformable
    DETR).
    """

    def __init__(self, proposals: ProposalHead, *, embed_dim: int) -> None:
        super().__init__(proposals)
        self.features = embed_dim // 2
        self.embed = nn.Linear(2 * embed_dim, 2 * embed_dim)
        self.embed_norm = nn.LayerNorm(2 * embed_dim)
        nn.init.xavier_uniform_(self.embed.weight)

    def forward(self, memory: Memory) -> Queries:
        """Boxes (B, N, 4), without a gradient, with their content and position (B, N, C)."""
        return self.make(memory, self.proposals(memory).boxes.detach())

    def make(self, memory: Memory, boxes: Tensor) -> Queries:
        """Boxes with content and position computed as for proposals."""
        boxes = _for_all_images(boxes, memory)
        sine = box_sine_embedding(boxes, self.features, y_first=False)
        embedding = self.embed_norm(self.embed(sine))
        position, content = _halves(embedding)
        return Queries(boxes, content=content, position=position)


class MixedQueries(QuerySource):
    """The boxes of the best proposals with learned content: mixed query selection (DINO, section
    3.4).
    """

    def __init__(self, proposals: ProposalHead, *, embed_dim: int) -> None:
        super().__init__(proposals)
        self.query_parts = {"content": embed_dim}
        self.content = nn.Parameter(torch.empty(proposals.count, embed_dim))
        nn.init.xavier_uniform_(self.content)

    def forward(self, memory: Memory) -> Queries:
        """Boxes (B, N, 4), without a gradient, and content (B, N, C), row 0 for the best one."""
        boxes = self.proposals(memory).boxes.detach()
        content = self.content[None, : boxes.shape[1]]
        return Queries(boxes, content=_for_all_images(content, memory))

    def make(self, memory: Memory, boxes: Tensor) -> Queries:
        """Boxes, each with a random row of the learned content."""
        placed = _for_all_images(boxes, memory)
        rows = torch.randint(len(self.content), boxes.shape[:2])
        content = self.content[to_device(rows, self.content.device)]
        return Queries(placed, content=_for_all_images(content, memory))

    def convert(self, memory: Memory, points: Queries) -> Queries:
        """The boxes of the points; their content where it is learned, otherwise random rows of this
        detector's content.

        Content that was computed from the box together with a position (two-stage Deformable DETR)
        has no meaning for this detector and is replaced.
        """
        points.require_sizes()
        if points.content is not None and points.position is None:
            return points
        return super().convert(memory, points)


def _for_all_images(values: Tensor, memory: Memory) -> Tensor:
    """(B, N, D), or (1, N, D) that all images share, as (B, N, D) on the memory's device."""
    return for_all_images(values, memory.tokens.shape[0], memory.tokens.device)


def _halves(embedding: Tensor) -> tuple[Tensor, Tensor]:
    """(B, N, 2C) as two (B, N, C). They are copies: for views PyTorch would choose how to multiply
    matrices by the number of images, so that a detector could only be exported for one number.
    """
    first, second = (half.contiguous() for half in embedding.chunk(2, dim=-1))
    return first, second
