"""The one box-refining decoder of the family.

DAB-DETR, Deformable DETR and their crosses differ in four answers: how a query's place becomes an
embedding, how the image is attended, whether boxes are refined from layer to layer, and what the
box loss of a layer may train. Everything else is this file.

Shape letters: B images, N queries, L layers, K classes, C model width, M feature levels.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..boxes import inverse_sigmoid
from ..structures import Predictions, Queries, UsageError
from .attention import QueryGeometry, Visibility
from .checkpointing import run_layer
from .deformable_attention import DeformableAttention
from .heads import MLP, FeedForward
from .memory import Memory
from .position_encoding import anchor_sine_embedding


class LearnedPosition(nn.Module):
    """The positional query comes with the query and stays (one-stage Deformable DETR)."""

    def forward(
        self, memory: Memory, queries: Queries, content: Tensor, boxes: Tensor, layer: int
    ) -> QueryGeometry:
        """See :class:`AnchorPosition`; only the queries' own position counts."""
        return QueryGeometry(embedding=queries.position, boxes=boxes)


class AnchorPosition(nn.Module):
    """The positional query is computed anew in each layer, from the box the query has by then.

    Args:
        width: C.
        temperature: of the anchors' sine embedding.
        modulated: also give the sine embedding of the centre, scaled by the content and by the
            box's width and height, that dense cross-attention compares places with (DAB-DETR).
        padded: embed the box in the frame of the *padded* batch, as every implementation of DINO
            does: its answers then depend, a little, on how much an image was padded.
    """

    def __init__(
        self,
        *,
        width: int,
        temperature: float = 10000.0,
        modulated: bool = False,
        padded: bool = False,
    ) -> None:
        super().__init__()
        self.features = width // 2
        self.temperature = temperature
        self.padded = padded
        self.embed = MLP(2 * width, width, width, layers=2)
        self.scale = MLP(width, width, width, layers=2) if modulated else None
        self.size = MLP(width, width, 2, layers=2) if modulated else None

    def forward(
        self, memory: Memory, queries: Queries, content: Tensor, boxes: Tensor, layer: int
    ) -> QueryGeometry:
        """See :class:`QueryGeometry`; ``content`` (B, N, C) and ``boxes`` enter layer ``layer``."""
        places = boxes
        if self.padded:
            places = boxes * memory.valid_ratios[:, :1].repeat(1, 1, 2)  # of the finest level
        sine = anchor_sine_embedding(places, self.features, temperature=self.temperature)
        embedding = self.embed(sine)
        if self.scale is None:
            return QueryGeometry(embedding=embedding, boxes=boxes)
        centre = sine[..., : 2 * self.features]
        if layer:  # content says nothing before the first layer
            centre = centre * self.scale(content)
        ratio = self.size(content).sigmoid() / boxes[..., 2:]
        y, x = centre.split(self.features, dim=-1)
        centre = torch.cat([y * ratio[..., 1:], x * ratio[..., :1]], dim=-1)
        return QueryGeometry(embedding=embedding, boxes=boxes, sine=centre)


class DeformableCrossAttention(DeformableAttention):
    """Queries sample the levels around, or inside, their reference."""

    def forward(self, x: Tensor, geometry: QueryGeometry, memory: Memory) -> Tensor:
        """(B, N, C) to (B, N, C), without the residual."""
        values = self.project_memory(memory)
        ratios = memory.valid_ratios[:, None]  # boxes are relative to the unpadded image
        if geometry.boxes.shape[-1] == 4:
            ratios = torch.cat([ratios, ratios], dim=-1)
        references = geometry.boxes[:, :, None] * ratios
        return self.attend(x + geometry.embedding, references, values, memory.shapes)

    def project_memory(self, memory: Memory) -> Tensor:
        """Values of the tokens, computed once per memory."""
        return memory.once(id(self), lambda: self.project(memory.tokens, memory.padding))


class DecoderLayer(nn.Module):
    """Self-attention, attention to the image and feed-forward, each with residual and norm."""

    def __init__(
        self,
        *,
        self_attention: nn.Module,
        cross_attention: nn.Module,
        feed_forward: FeedForward,
        width: int,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.self_attention = self_attention
        self.cross_attention = cross_attention
        self.feed_forward = feed_forward
        self.self_norm = nn.LayerNorm(width)
        self.cross_norm = nn.LayerNorm(width)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Tensor, geometry: QueryGeometry, memory: Memory, visibility: Visibility
    ) -> Tensor:
        """(B, N, C) to (B, N, C)."""
        seen = self.self_attention(x, geometry.embedding, visibility)
        x = self.self_norm(x + self.dropout(seen))
        x = self.cross_norm(x + self.dropout(self.cross_attention(x, geometry, memory)))
        return self.feed_forward_norm(x + self.dropout(self.feed_forward(x)))


class Decoder(nn.Module):
    """Layers that answer any queries and move their boxes as they go.

    Args:
        layers: :class:`DecoderLayer`.
        position: a :class:`LearnedPosition` or :class:`AnchorPosition`.
        class_heads, box_heads: one for all layers, or one a layer.
        width: C.
        norm: put before the heads (DAB-DETR, DINO); None: none (Deformable DETR).
        refine: pass each layer's boxes on, detached, as the next layer's reference.
        look_forward_twice: the box loss of a layer also trains the layer before (DAB-DETR; named
            by DINO): the reference that a predicted box is added to is not detached.
        eps: of :func:`inverse_sigmoid`.
        checkpoint_activations: recompute the layers in the backward pass, see :func:`run_layer`.
    """

    def __init__(
        self,
        *,
        layers: Sequence[DecoderLayer],
        position: nn.Module,
        class_heads: Sequence[nn.Module],
        box_heads: Sequence[nn.Module],
        width: int,
        norm: nn.Module | None = None,
        refine: bool = True,
        look_forward_twice: bool = False,
        eps: float = 1e-3,
        checkpoint_activations: bool = False,
    ) -> None:
        super().__init__()
        for name, heads in (("class_heads", class_heads), ("box_heads", box_heads)):
            if len(heads) not in (1, len(layers)):
                raise ValueError(f"{len(heads)} {name} for {len(layers)} layers: give 1 or all.")
        self.layers = nn.ModuleList(layers)
        self.position = position
        self.class_heads = nn.ModuleList(class_heads)
        self.box_heads = nn.ModuleList(box_heads)
        self.norm = norm
        self.width = width
        self.refine = refine
        self.look_forward_twice = look_forward_twice
        self.eps = eps
        self.checkpoint_activations = checkpoint_activations

    def forward(self, memory: Memory, queries: Queries) -> Predictions:
        """Ask the queries about the images of ``memory``.

        Raises:
            UsageError: the queries are not of the kind this decoder can read.
        """
        self._check(queries)
        x = queries.content
        if x is None:
            x = memory.tokens.new_zeros(*queries.boxes.shape[:2], self.width)
        visibility = Visibility(tuple(queries.groups.values()), queries.hidden())
        reference = queries.boxes
        logits, boxes = [], []
        for i, layer in enumerate(self.layers):
            place = reference.detach() if self.refine and i else reference
            geometry = self.position(memory, queries, x, place, i)
            # Outside of what is recomputed: a second pass over the same memory finds it done.
            layer.cross_attention.project_memory(memory)
            x = run_layer(
                layer, x, geometry, memory, visibility, recompute=self.checkpoint_activations
            )
            output = x if self.norm is None else self.norm(x)
            logits.append(self.class_heads[min(i, len(self.class_heads) - 1)](output).float())
            base = reference if self.look_forward_twice else place
            boxes.append(self._box(i, output, base))
            if self.refine and i + 1 < len(self.layers):
                # Without a norm and a second look the next reference is the predicted box itself.
                same = self.norm is None and base is place
                reference = boxes[-1] if same else self._box(i, x, place)
        return Predictions(torch.stack(logits), torch.stack(boxes))

    def _box(self, i: int, x: Tensor, reference: Tensor) -> Tensor:
        """The box head's offset added, in logits, to a (B, N, 4) or (B, N, 2) reference."""
        offset = self.box_heads[min(i, len(self.box_heads) - 1)](x).float()
        start = inverse_sigmoid(reference.float(), eps=self.eps)
        if start.shape[-1] == 2:
            start = torch.cat([start, torch.zeros_like(start)], dim=-1)
        return (offset + start).sigmoid()

    def _check(self, queries: Queries) -> None:
        if isinstance(self.position, LearnedPosition) and queries.position is None:
            raise UsageError(
                "These queries have no positional embedding and this decoder computes none from"
                " their boxes: let the detector adopt them first (Detector.adopt)."
            )
        if isinstance(self.position, AnchorPosition) and queries.boxes.shape[-1] != 4:
            raise UsageError(
                "These queries have a centre but no size and this decoder needs both: let the"
                " detector adopt them first (Detector.adopt)."
            )
        for name in ("content", "position"):
            value = getattr(queries, name)
            if value is not None and value.shape[-1] != self.width:
                raise UsageError(
                    f"The queries' {name} is {value.shape[-1]} wide and this decoder is"
                    f" {self.width} wide: project it first, as KDDETR does."
                )
