"""Dense attention of the DETR family: among queries, and from queries to the encoded image.

Queries of different groups do not see one another: self-attention runs group by group, which gives
the numbers of separate passes and is cheaper than one attention under a block mask. Only where a
group does see another one (denoising) is a mask needed.

Shape letters: B images, N queries, S tokens, H heads, C model width.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .memory import Memory


@dataclass(frozen=True)
class QueryGeometry:
    """Where the queries of one decoder layer are.

    Attributes:
        embedding: (B, N, C) positional query.
        boxes: (B, N, 4) or (B, N, 2) reference in the unpadded frame.
        sine: (B, N, C) modulated sine embedding of the centre, where the family uses one.
    """

    embedding: Tensor
    boxes: Tensor
    sine: Tensor | None = None


@dataclass(frozen=True)
class Visibility:
    """Who sees whom in self-attention.

    Attributes:
        sizes: of consecutive groups, N in all; empty: one group.
        hidden: (N, N) bool, True where the query of the row may not look at that of the column; in
            place of the groups where one of them sees another. None: the groups are blind.
    """

    sizes: Sequence[int] = ()
    hidden: Tensor | None = None


def by_group(
    attend: Callable[..., Tensor], visibility: Visibility | None, *tensors: Tensor
) -> Tensor:
    """``attend(*tensors, hidden)`` on all (B, N, C) queries, or on each group by itself."""
    if visibility is None or visibility.hidden is not None or len(visibility.sizes) < 2:
        return attend(*tensors, None if visibility is None else visibility.hidden)
    parts = zip(*(t.split(list(visibility.sizes), dim=1) for t in tensors), strict=True)
    return torch.cat([attend(*part, None) for part in parts], dim=1)


class SelfAttention(nn.Module):
    """q = k = x + position, v = x (encoder of DAB-DETR, decoder of Deformable DETR and DINO)."""

    def __init__(self, *, width: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.multihead = nn.MultiheadAttention(width, heads, dropout=dropout, batch_first=True)

    def forward(
        self,
        x: Tensor,
        position: Tensor,
        visibility: Visibility | None = None,
        padding: Tensor | None = None,
    ) -> Tensor:
        """(B, N, C) to (B, N, C), without the residual; ``padding`` (B, N) True is not attended."""

        def attend(x: Tensor, position: Tensor, hidden: Tensor | None) -> Tensor:
            q = x + position
            return self.multihead(
                q, q, x, key_padding_mask=padding, attn_mask=hidden, need_weights=False
            )[0]

        return by_group(attend, visibility, x, position)


class ConditionalSelfAttention(nn.Module):
    """Content and position are projected apart and added (DAB-DETR decoder)."""

    def __init__(self, *, width: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query_content = nn.Linear(width, width)
        self.query_position = nn.Linear(width, width)
        self.key_content = nn.Linear(width, width)
        self.key_position = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)

    def forward(self, x: Tensor, position: Tensor, visibility: Visibility | None = None) -> Tensor:
        """(B, N, C) to (B, N, C), without the residual."""
        q = self.query_content(x) + self.query_position(position)
        k = self.key_content(x) + self.key_position(position)
        dropout = self.dropout if self.training else 0.0

        def attend(q: Tensor, k: Tensor, v: Tensor, hidden: Tensor | None) -> Tensor:
            q, k, v = (split_heads(t, self.heads) for t in (q, k, v))
            seen = None if hidden is None else ~hidden
            return merge_heads(F.scaled_dot_product_attention(q, k, v, seen, dropout_p=dropout))

        return self.output(by_group(attend, visibility, q, k, self.value(x)))


class ConditionalCrossAttention(nn.Module):
    """Content and place are compared side by side in each head (Meng et al., Conditional DETR).

    Args:
        first: the first decoder layer, whose content still says nothing: there the positional
            query is added to the content query, and the key position to the content key.
    """

    def __init__(
        self, *, width: int, heads: int, first: bool = False, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query_content = nn.Linear(width, width)
        self.query_position = nn.Linear(width, width) if first else None
        self.query_sine = nn.Linear(width, width)
        self.key_content = nn.Linear(width, width)
        self.key_position = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)

    def forward(self, x: Tensor, geometry: QueryGeometry, memory: Memory) -> Tensor:
        """(B, N, C) to (B, N, C), without the residual."""
        q = self.query_content(x)
        if self.query_position is not None:
            q = q + self.query_position(geometry.embedding)
        q = self._side_by_side(q, self.query_sine(geometry.sine))
        k, v = self.project_memory(memory)
        mask = memory.once("visible", lambda: ~memory.padding[:, None, None, :])
        dropout = self.dropout if self.training else 0.0
        # The mask is given even when nothing is padded: which kernel runs, and so the last bits,
        # must not depend on who else is in the batch.
        return self.output(
            merge_heads(F.scaled_dot_product_attention(q, k, v, mask, dropout_p=dropout))
        )

    def project_memory(self, memory: Memory) -> tuple[Tensor, Tensor]:
        """Keys and values of the tokens, computed once per memory."""
        keys = memory.once((id(self), "key"), lambda: self._keys(memory))
        values = memory.once(
            (id(self), "value"), lambda: split_heads(self.value(memory.tokens), self.heads)
        )
        return keys, values

    def _keys(self, memory: Memory) -> Tensor:
        k, place = self.key_content(memory.tokens), self.key_position(memory.position)
        return self._side_by_side(k + place if self.query_position is not None else k, place)

    def _side_by_side(self, content: Tensor, place: Tensor) -> Tensor:
        """(B, N, C) twice to (B, H, N, 2 * C / H)."""
        return torch.cat([split_heads(content, self.heads), split_heads(place, self.heads)], dim=-1)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(B, N, C) to (B, H, N, C / H)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """(B, H, N, D) to (B, N, H * D)."""
    return x.transpose(1, 2).flatten(2)
