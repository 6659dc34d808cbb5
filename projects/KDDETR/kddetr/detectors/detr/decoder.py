"""The one decoder of all detection transformers here: it refines the box of each query layer by
layer.

Shape letters: B images, N queries, L layers, K classes, C embedding width, M feature levels.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...boxes import inverse_sigmoid
from ...errors import UsageError
from ...predictions import layer_numbers
from ...structures import Predictions, Queries
from .attention import GroupMask, QueryGeometry
from .checkpointing import run_layer
from .deformable_attention import DeformableAttention
from .heads import MLP, FeedForward
from .memory import Memory
from .position_encoding import box_sine_embedding


class LearnedPosition(nn.Module):
    """The positional embedding that comes with the query, the same in every layer (one-stage
    Deformable DETR).
    """

    def forward(
        self, memory: Memory, queries: Queries, content: Tensor, boxes: Tensor, layer: int
    ) -> QueryGeometry:
        """See :class:`AnchorPosition`; only ``queries.position`` and the boxes are used."""
        return QueryGeometry(embedding=queries.position, boxes=boxes)


class AnchorPosition(nn.Module):
    """A positional embedding computed in every layer from the box that the query has there.

    Args:
        embed_dim: C.
        temperature: of the sine embedding of the boxes.
        modulated: also compute the sine embedding of the centre, scaled by the content and by the
            box's width and height, which dense cross-attention compares positions with (DAB-DETR).
            It is divided by the width and height, as published, without a lower bound here. The
            bound comes from the boxes: those of anchors and layers are sigmoids, and so above 0;
            general points are at least 0.01 wide and high (uniform), or sigmoids of N(0, 1). A
            sampler of other boxes must not give sizes of 0.
        padded: embed the box in the frame of the *padded* batch, as every implementation of DINO
            does. The predictions then depend a little on how much an image was padded.
    """

    def __init__(
        self,
        *,
        embed_dim: int,
        temperature: float = 10000.0,
        modulated: bool = False,
        padded: bool = False,
    ) -> None:
        super().__init__()
        self.features = embed_dim // 2
        self.temperature = temperature
        self.padded = padded
        self.embed = MLP(2 * embed_dim, embed_dim, embed_dim, layers=2)
        self.scale = MLP(embed_dim, embed_dim, embed_dim, layers=2) if modulated else None
        self.size = MLP(embed_dim, embed_dim, 2, layers=2) if modulated else None

    def forward(
        self, memory: Memory, queries: Queries, content: Tensor, boxes: Tensor, layer: int
    ) -> QueryGeometry:
        """Embed the (B, N, 4) boxes that enter a layer (counted from 0) with their (B, N, C)
        content; ``queries`` are those that entered the decoder.
        """
        embedded = boxes
        if self.padded:
            embedded = boxes * memory.valid_ratios[:, :1].repeat(1, 1, 2)  # of the finest level
        sine = box_sine_embedding(
            embedded, self.features, y_first=True, temperature=self.temperature
        )
        embedding = self.embed(sine)
        if self.scale is None:
            return QueryGeometry(embedding=embedding, boxes=boxes)
        centre = sine[..., : 2 * self.features]
        # In the first layer the content is 0 for every query, so it cannot scale anything.
        if layer:
            centre = centre * self.scale(content)
        ratio = self.size(content).sigmoid() / boxes[..., 2:]
        y, x = centre.split(self.features, dim=-1)
        centre = torch.cat([y * ratio[..., 1:], x * ratio[..., :1]], dim=-1)
        return QueryGeometry(embedding=embedding, boxes=boxes, sine=centre)


class DeformableCrossAttention(DeformableAttention):
    """Attention of the queries to a few sampling points around or inside their reference box."""

    def project_memory(self, memory: Memory) -> Tensor:
        """Values of the tokens, (B, S, H, C / H), computed once per memory."""
        return memory.cached(id(self), lambda: self.project(memory.tokens, memory.padding))

    def forward(
        self, x: Tensor, geometry: QueryGeometry, memory: Memory, projected: Tensor
    ) -> Tensor:
        """(B, N, C) to (B, N, C), without the residual; ``projected`` is :meth:`project_memory`."""
        ratios = memory.valid_ratios[:, None]  # boxes are relative to the unpadded image
        if geometry.boxes.shape[-1] == 4:
            ratios = torch.cat([ratios, ratios], dim=-1)
        references = geometry.boxes[:, :, None] * ratios
        return self.attend(x + geometry.embedding, references, projected, memory.shapes)


class DecoderLayer(nn.Module):
    """Self-attention of the queries, attention to the image and a feed-forward network, each with
    dropout, residual and norm.
    """

    def __init__(
        self,
        *,
        self_attention: nn.Module,
        cross_attention: nn.Module,
        feed_forward: FeedForward,
        embed_dim: int,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.self_attention = self_attention
        self.cross_attention = cross_attention
        self.feed_forward = feed_forward
        self.self_norm = nn.LayerNorm(embed_dim)
        self.cross_norm = nn.LayerNorm(embed_dim)
        self.feed_forward_norm = nn.LayerNorm(embed_dim)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Tensor,
        geometry: QueryGeometry,
        memory: Memory,
        projected: Any,
        group_mask: GroupMask,
    ) -> Tensor:
        """(B, N, C) to (B, N, C); ``projected`` is what the cross-attention made of the memory."""
        attended = self.self_attention(x, geometry.embedding, group_mask)
        x = self.self_norm(x + self.dropout(attended))
        attended = self.cross_attention(x, geometry, memory, projected)
        x = self.cross_norm(x + self.dropout(attended))
        return self.feed_forward_norm(x + self.dropout(self.feed_forward(x)))


class Decoder(nn.Module):
    """Decoder layers with class and box heads; they answer any queries.

    Args:
        layers: L of them.
        position: a :class:`LearnedPosition` or an :class:`AnchorPosition`.
        class_heads, box_heads: one for all layers, or one for each layer.
        embed_dim: C.
        norm: applied before the heads (DAB-DETR, DINO); None: no norm (Deformable DETR).
        refine: the box that a layer predicts, detached, is the reference box of the next layer.
        look_forward_twice: the reference to which the box head's offset is added is not detached,
            so the box loss of a layer also trains the layer before it (DAB-DETR; named by DINO,
            section 3.5).
        eps: of :func:`~kddetr.boxes.inverse_sigmoid`.
        checkpoint_activations: recompute the layers in the backward pass, see :func:`run_layer`.
    """

    def __init__(
        self,
        *,
        layers: Sequence[DecoderLayer],
        position: nn.Module,
        class_heads: Sequence[nn.Module],
        box_heads: Sequence[nn.Module],
        embed_dim: int,
        norm: nn.Module | None = None,
        refine: bool = True,
        look_forward_twice: bool = False,
        eps: float = 1e-3,
        checkpoint_activations: bool = False,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.position = position
        self.class_heads = nn.ModuleList(class_heads)
        self.box_heads = nn.ModuleList(box_heads)
        self.norm = norm
        self.embed_dim = embed_dim
        self.refine = refine
        self.look_forward_twice = look_forward_twice
        self.eps = eps
        self.checkpoint_activations = checkpoint_activations

    def forward(
        self, memory: Memory, queries: Queries, layers: Sequence[int] | None = None
    ) -> Predictions:
        """The predictions at the queries about the images of ``memory``, (L, B, N, ...).

        Args:
            memory: of the images.
            queries: of this detector's kind.
            layers: indices of the layers whose predictions are wanted, -1 for the last one; None:
                all. The heads of the other layers are left out where they only predict, and so are
                the layers behind the last wanted one.

        Raises:
            UsageError: the queries are of another detector's kind, or there is no such layer.
        """
        self._check(queries)
        wanted = layer_numbers(layers, len(self.layers))
        last = max(wanted)
        x = queries.content
        if x is None:
            x = memory.tokens.new_zeros(*queries.boxes.shape[:2], self.embed_dim)
        group_mask = GroupMask(queries)
        # Without a norm, and without looking forward twice, the next reference is the predicted
        # box: both are computed from the same output and the same reference.
        passes_predicted_box = self.norm is None and not self.look_forward_twice
        reference = queries.boxes
        found: dict[int, tuple[Tensor, Tensor]] = {}
        for i, layer in enumerate(self.layers[: last + 1]):
            # Not detached before the first layer: there the learned anchors get their gradient.
            entering = reference.detach() if self.refine and i else reference
            geometry = self.position(memory, queries, x, entering, i)
            # Outside run_layer, so that the backward pass does not recompute it; Memory.cached
            # keeps it for further queries.
            projected = layer.cross_attention.project_memory(memory)
            inputs = (x, geometry, memory, projected, group_mask)
            x = run_layer(layer, *inputs, recompute=self.checkpoint_activations)
            if i in wanted:
                output = x if self.norm is None else self.norm(x)
                box = self._box(i, output, reference if self.look_forward_twice else entering)
                found[i] = self._head(self.class_heads, i)(output).float(), box
            if self.refine and i < last:
                passed = passes_predicted_box and i in wanted
                reference = found[i][1] if passed else self._box(i, x, entering)
        logits, boxes = (torch.stack(part) for part in zip(*(found[i] for i in wanted)))
        return Predictions(logits, boxes, layers=None if layers is None else tuple(layers))

    def _head(self, heads: nn.ModuleList, layer: int) -> nn.Module:
        return heads[layer if len(heads) > 1 else 0]

    def _box(self, layer: int, x: Tensor, reference: Tensor) -> Tensor:
        """The box head's offset added, in logits, to a (B, N, 4) or (B, N, 2) reference."""
        offset = self._head(self.box_heads, layer)(x).float()
        start = inverse_sigmoid(reference.float(), eps=self.eps)
        if start.shape[-1] == 2:
            start = torch.cat([start, torch.zeros_like(start)], dim=-1)
        return (offset + start).sigmoid()

    def _check(self, queries: Queries) -> None:
        if isinstance(self.position, LearnedPosition) and queries.position is None:
            raise UsageError(
                "These queries have no positional embedding, and this decoder does not compute one"
                " from their boxes: convert them first with Detector.convert_queries."
            )
        if isinstance(self.position, AnchorPosition) and queries.boxes.shape[-1] != 4:
            raise UsageError(
                "These queries have a centre but no size, and this decoder needs both: convert them"
                " first with Detector.convert_queries."
            )
        for name in ("content", "position"):
            value = getattr(queries, name)
            if value is not None and value.shape[-1] != self.embed_dim:
                raise UsageError(
                    f"The {name} embeddings of these queries are {value.shape[-1]} wide and this"
                    f" decoder is {self.embed_dim} wide: project them first, as KDDETR does."
                )
