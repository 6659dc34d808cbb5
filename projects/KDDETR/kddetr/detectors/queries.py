"""Where a detector's own queries come from."""

import torch
from torch import Tensor, nn

from ..boxes import inverse_sigmoid
from ..structures import Queries
from .memory import Memory


class AnchorQueries(nn.Module):
    """Learned anchor boxes; the content starts from zero (DAB-DETR).

    Args:
        count: N.
        size: initial width and height, as a fraction of the image's; None: N(0, 1) in logits, as
            published. Short trainings on small objects gain much from starting at their size.
    """

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
        boxes = boxes.to(memory.tokens.device)
        return Queries(boxes.expand(len(memory.tokens), -1, -1))


class EmbeddingQueries(nn.Module):
    """Learned content and position; the place is a linear function of the position (Deformable
    DETR).

    Args:
        count: N.
        width: C.
    """

    def __init__(self, count: int, *, width: int) -> None:
        super().__init__()
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
        return self._queries(table.to(memory.tokens.device).expand(len(memory.tokens), -1, -1))

    def _queries(self, embedding: Tensor) -> Queries:
        position, content = embedding.chunk(2, dim=-1)
        return Queries(self.reference(position).sigmoid(), content=content, position=position)
