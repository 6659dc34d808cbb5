"""Deformable DETR (Zhu et al., ICLR 2021), plain, with iterative box refinement or in two stages,
and its cross with DAB-DETR: anchor boxes as queries, deformable attention.
"""

from collections.abc import Sequence

from torch import nn

from .criterion import SetCriterion
from .decoder import AnchorPosition, Decoder, LearnedPosition
from .deformable_parts import DeformableParts, initialise
from .heads import box_head, class_head
from .matcher import HungarianMatcher
from .proposals import ProposalHead
from .queries import AnchorQueries, EmbeddingQueries, ProposalQueries
from .transformer import DetectionTransformer


def deformable_detr(
    *,
    backbone: nn.Module,
    num_classes: int,
    in_features: Sequence[str] = ("res3", "res4", "res5"),
    extra_levels: int = 1,
    num_queries: int = 300,
    anchor_queries: bool = False,
    anchor_size: float | None = None,
    refine: bool = True,
    two_stage: bool = False,
    width: int = 256,
    heads: int = 8,
    points: int = 4,
    hidden: int = 1024,
    encoder_layers: int = 6,
    decoder_layers: int = 6,
    dropout: float = 0.1,
    activation: str = "relu",
    groups: int = 32,
    temperature: float = 10000.0,
    offset: float = -0.5,
    eps: float = 1e-3,
    num_detections: int = 300,
    criterion: SetCriterion | None = None,
    checkpoint_activations: bool = False,
) -> DetectionTransformer:
    """The published model, with detrex's clamp and number of detections by default; the configs
    set the authors'.

    Args:
        backbone: a Detectron2 backbone.
        num_classes: K.
        in_features: backbone features, fine to coarse.
        extra_levels: strided convolutions on top of the last one.
        num_queries: N.
        anchor_queries: learned anchor boxes in place of learned embeddings (DAB-Deformable-DETR):
            the positional query is computed from the box in every layer, the heads get a norm, and
            the box loss looks forward twice, as in DAB-DETR.
        anchor_size: their initial width and height, see :class:`AnchorQueries`.
        refine: iterative box refinement, with heads of their own for every layer.
        two_stage: the encoder's best proposals are the queries; needs ``refine``.
        width: C.
        heads: of every attention.
        points: sampled per head and level.
        hidden: width of the feed-forwards.
        encoder_layers, decoder_layers: their number.
        dropout: on attention, feed-forwards and residuals.
        activation: of the feed-forwards.
        groups: of the neck's GroupNorm.
        temperature, offset: of the image position embedding.
        eps: of the clamped logit; weights of the Deformable DETR project were trained with 1e-5.
        num_detections: kept per image; the Deformable DETR project keeps 100.
        criterion: default weights 2, 5, 2.
        checkpoint_activations: recompute the transformer's layers in the backward pass.

    Raises:
        ValueError: ``anchor_queries`` or ``two_stage`` without ``refine``, or both at once.
    """
    if (anchor_queries or two_stage) and not refine:
        raise ValueError("Anchor boxes and proposals are there to be refined: set refine=True.")
    if anchor_queries and two_stage:
        raise ValueError("Queries are learned anchors or proposals: choose one of the two.")
    parts = DeformableParts(
        width=width,
        heads=heads,
        levels=len(in_features) + extra_levels,
        points=points,
        hidden=hidden,
        dropout=dropout,
        activation=activation,
        checkpoint_activations=checkpoint_activations,
    )
    encoder = parts.encoder(encoder_layers, temperature=temperature, offset=offset)
    layers = parts.decoder_layers(decoder_layers)
    position = AnchorPosition(width=width) if anchor_queries else LearnedPosition()
    initialise(*encoder.layers, *layers, position)
    head_sets = decoder_layers if refine else 1
    # Without a size of its own to start from, a query's first box is small: sigmoid(-2) = 0.12.
    first_bias = 0.0 if anchor_queries or two_stage else -2.0
    decoder = Decoder(
        layers=layers,
        position=position,
        class_heads=[class_head(width, num_classes) for _ in range(head_sets)],
        box_heads=[box_head(width, size_bias=0.0 if i else first_bias) for i in range(head_sets)],
        width=width,
        norm=nn.LayerNorm(width) if anchor_queries else None,
        refine=refine,
        look_forward_twice=anchor_queries,
        eps=eps,
        checkpoint_activations=checkpoint_activations,
    )
    neck = parts.neck(backbone, in_features, extra_levels, groups)
    if anchor_queries:
        source = AnchorQueries(num_queries, size=anchor_size)
    elif two_stage:
        proposals = ProposalHead(
            width=width,
            count=num_queries,
            class_head=class_head(width, num_classes),
            box_head=box_head(width),
            class_agnostic=True,
        )
        source = ProposalQueries(proposals, width=width)
    else:
        source = EmbeddingQueries(num_queries, width=width)
    return DetectionTransformer(
        backbone=backbone,
        neck=neck,
        encoder=encoder,
        query_source=source,
        decoder=decoder,
        criterion=criterion or SetCriterion(matcher=HungarianMatcher(), class_weight=2.0),
        num_classes=num_classes,
        num_detections=num_detections,
    )
