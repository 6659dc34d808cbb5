"""Dense attention of the DETR family: among the queries, and from the queries to the encoded image.

Shape letters: B images, N queries, S tokens, H heads, C embedding width.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...structures import Queries
from ...transfer import to_device
from .memory import Memory


@dataclass(frozen=True)
class QueryGeometry:
    """The reference boxes of one decoder layer and their embeddings.

    Attributes:
        embedding: (B, N, C) positional embedding.
        boxes: (B, N, 4) or (B, N, 2) reference in the frame of the unpadded image.
        sine: (B, N, C) sine embedding of the centre, scaled as in :class:`AnchorPosition`, where
            the detector uses one (DAB-DETR).
    """

    embedding: Tensor
    boxes: Tensor
    sine: Tensor | None = None


def forbidden_pairs(queries: Queries) -> Tensor:
    """(N, N) bool, True where the query of the row may not attend to that of the column."""
    names = list(queries.groups)
    sizes = list(queries.groups.values())
    forbidden = torch.ones(len(names), len(names), dtype=torch.bool)
    for i, name in enumerate(names):
        for other in (name, *queries.attends_to.get(name, ())):
            forbidden[i, names.index(other)] = False
    group = torch.arange(len(names)).repeat_interleave(torch.tensor(sizes))
    return to_device(forbidden[group][:, group], queries.boxes.device)


class GroupMask:
    """Self-attention mask between query groups.

    Without ``attends_to`` each group is a block of its own, and attention runs block by block: the
    same numbers as one attention under an (N, N) mask, at less cost. With ``attends_to``
    (denoising) all queries are one block under a mask.
    """

    def __init__(self, queries: Queries) -> None:
        sizes = list(queries.groups.values()) or [queries.boxes.shape[1]]
        if not queries.attends_to:
            self.sizes, self.masks = sizes, [None] * len(sizes)
            return
        self.sizes, self.masks = [len(queries)], [forbidden_pairs(queries)]

    def attend(self, attention: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
        """``attention(*tensors, attn_mask)`` of every block of (B, N, C) tensors, joined.

        Args:
            attention: maps (B, n, C) tensors of a block and its (n, n) bool mask, True where the
                query of the row may *not* attend to that of the column, or None, to (B, n, C).
            tensors: (B, N, C) each.
        """
        if len(self.sizes) == 1:
            return attention(*tensors, self.masks[0])
        blocks = zip(*(t.split(self.sizes, dim=1) for t in tensors), self.masks, strict=True)
        return torch.cat([attention(*block) for block in blocks], dim=1)


class SelfAttention(nn.Module):
    """DETR's self-attention: q = k = x + position and v = x (encoder of DAB-DETR, decoder of
    Deformable DETR and DINO).
    """

    def __init__(self, *, embed_dim: int, num_heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.multihead = nn.MultiheadAttention(
            embed_dim, num_heads, dropout=dropout, batch_first=True
        )

    def forward(self, x: Tensor, position: Tensor, group_mask: GroupMask) -> Tensor:
        """(B, N, C) to (B, N, C), without the residual."""
        return group_mask.attend(self.attend, x, position)

    def attend(
        self, x: Tensor, position: Tensor, attn_mask: Tensor | None = None, **masks: Tensor
    ) -> Tensor:
        """(B, N, C) to (B, N, C) under the masks of ``torch.nn.MultiheadAttention``."""
        q = x + position
        return self.multihead(q, q, x, need_weights=False, attn_mask=attn_mask, **masks)[0]


class ConditionalSelfAttention(nn.Module):
    """DAB-DETR's self-attention among the queries: content and position are projected separately
    and added.
    """

    def __init__(self, *, embed_dim: int, num_heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.num_heads, self.dropout = num_heads, dropout
        self.query_content = nn.Linear(embed_dim, embed_dim)
        self.query_position = nn.Linear(embed_dim, embed_dim)
        self.key_content = nn.Linear(embed_dim, embed_dim)
        self.key_position = nn.Linear(embed_dim, embed_dim)
        self.value = nn.Linear(embed_dim, embed_dim)
        self.output = nn.Linear(embed_dim, embed_dim)

    def forward(self, x: Tensor, position: Tensor, group_mask: GroupMask) -> Tensor:
        """(B, N, C) to (B, N, C), without the residual."""
        q = self.query_content(x) + self.query_position(position)
        k = self.key_content(x) + self.key_position(position)
        dropout = self.dropout if self.training else 0.0

        def attention(q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None) -> Tensor:
            q, k, v = (split_heads(t, self.num_heads) for t in (q, k, v))
            # True means "may attend" to this function, unlike to nn.MultiheadAttention.
            allowed = None if attn_mask is None else ~attn_mask
            return merge_heads(F.scaled_dot_product_attention(q, k, v, allowed, dropout_p=dropout))

        return self.output(group_mask.attend(attention, q, k, self.value(x)))


class ConditionalCrossAttention(nn.Module):
    """Attention to the image that compares content and position separately (Conditional DETR).

    In each head the content and position parts of a query, and of a key, are concatenated (Meng et
    al., ICCV 2021).

    Args:
        embed_dim, num_heads: C, H.
        first: whether it belongs to the first decoder layer. The content there starts from zero, so
            the positional embedding is added to the content of the query, and the position of a
            key to its content.
        dropout: of the attention weights.
    """

    def __init__(
        self, *, embed_dim: int, num_heads: int, first: bool = False, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.num_heads, self.dropout = num_heads, dropout
        self.query_content = nn.Linear(embed_dim, embed_dim)
        self.query_position = nn.Linear(embed_dim, embed_dim) if first else None
        self.query_sine = nn.Linear(embed_dim, embed_dim)
        self.key_content = nn.Linear(embed_dim, embed_dim)
        self.key_position = nn.Linear(embed_dim, embed_dim)
        self.value = nn.Linear(embed_dim, embed_dim)
        self.output = nn.Linear(embed_dim, embed_dim)

    def project_memory(self, memory: Memory) -> tuple[Tensor, Tensor]:
        """Keys (B, H, S, 2C / H) and values (B, H, S, C / H), computed once per memory."""

        def make() -> tuple[Tensor, Tensor]:
            k, position = self.key_content(memory.tokens), self.key_position(memory.position)
            k = k + position if self.query_position is not None else k
            value = split_heads(self.value(memory.tokens), self.num_heads)
            return self._concatenate(k, position), value

        return memory.cached(id(self), make)

    def forward(
        self,
        x: Tensor,
        geometry: QueryGeometry,
        memory: Memory,
        projected: tuple[Tensor, Tensor],
    ) -> Tensor:
        """(B, N, C) to (B, N, C), without the residual; ``projected`` is :meth:`project_memory`."""
        q = self.query_content(x)
        if self.query_position is not None:
            q = q + self.query_position(geometry.embedding)
        q = self._concatenate(q, self.query_sine(geometry.sine))
        k, v = projected
        mask = memory.cached("attn_mask", lambda: ~memory.padding[:, None, None, :])
        dropout = self.dropout if self.training else 0.0
        # The mask is passed even where nothing is padded. Otherwise the other images of a batch
        # would decide which kernel runs, and so the last bits of the result.
        return self.output(
            merge_heads(F.scaled_dot_product_attention(q, k, v, mask, dropout_p=dropout))
        )

    def _concatenate(self, content: Tensor, position: Tensor) -> Tensor:
        """Join content and position head by head: two (B, N, C) to one (B, H, N, 2C / H)."""
        parts = [split_heads(t, self.num_heads) for t in (content, position)]
        return torch.cat(parts, dim=-1)


def split_heads(x: Tensor, num_heads: int) -> Tensor:
    """(B, N, C) to (B, H, N, C / H)."""
    return x.unflatten(-1, (num_heads, -1)).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """(B, H, N, D) to (B, N, H * D)."""
    return x.transpose(1, 2).flatten(2)
