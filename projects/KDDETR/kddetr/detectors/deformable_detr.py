"""Deformable DETR (Zhu et al., ICLR 2021), plain or with iterative box refinement, and its cross
with DAB-DETR: anchor boxes as queries, deformable attention.
"""

from collections.abc import Sequence

from torch import nn

from .attention import SelfAttention
from .criterion import SetCriterion
from .decoder import (
    AnchorPosition,
    Decoder,
    DecoderLayer,
    DeformableCrossAttention,
    LearnedPosition,
)
from .deformable_attention import DeformableAttention
from .encoder import DeformableTokenAttention, Encoder, EncoderLayer
from .heads import FeedForward, box_head, class_head, xavier_
from .matcher import HungarianMatcher
from .neck import FeatureProjection
from .position_encoding import ImageSineEmbedding
from .queries import AnchorQueries, EmbeddingQueries
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

    Raises:
        ValueError: ``anchor_queries`` without ``refine``.
    """
    if anchor_queries and not refine:
        raise ValueError("Anchor boxes are there to be refined: set refine=True.")
    levels = len(in_features) + extra_levels
    sampling = {"width": width, "heads": heads, "levels": levels, "points": points}

    def feed_forward() -> FeedForward:
        return FeedForward(width=width, hidden=hidden, activation=activation, dropout=dropout)

    encoder = Encoder(
        layers=[
            EncoderLayer(
                attention=DeformableTokenAttention(**sampling),
                feed_forward=feed_forward(),
                width=width,
                dropout=dropout,
            )
            for _ in range(encoder_layers)
        ],
        position_embedding=ImageSineEmbedding(
            features=width // 2, temperature=temperature, offset=offset
        ),
        levels=levels,
        width=width,
    )
    layers = [
        DecoderLayer(
            self_attention=SelfAttention(width=width, heads=heads, dropout=dropout),
            cross_attention=DeformableCrossAttention(**sampling),
            feed_forward=feed_forward(),
            width=width,
            dropout=dropout,
        )
        for _ in range(decoder_layers)
    ]
    position = AnchorPosition(width=width) if anchor_queries else LearnedPosition()
    for part in (*encoder.layers, *layers, position):
        _initialise(part)
    head_sets = decoder_layers if refine else 1
    # Without a size of its own to start from, a query's first box is small: sigmoid(-2) = 0.12.
    first_bias = 0.0 if anchor_queries else -2.0
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
    )
    shapes = backbone.output_shape()
    return DetectionTransformer(
        backbone=backbone,
        neck=FeatureProjection(
            in_features=in_features,
            in_channels=[shapes[name].channels for name in in_features],
            width=width,
            extra_levels=extra_levels,
            groups=groups,
        ),
        encoder=encoder,
        query_source=(
            AnchorQueries(num_queries, size=anchor_size)
            if anchor_queries
            else EmbeddingQueries(num_queries, width=width)
        ),
        decoder=decoder,
        criterion=criterion or SetCriterion(matcher=HungarianMatcher(), class_weight=2.0),
        num_classes=num_classes,
        num_detections=num_detections,
    )


def _initialise(module: nn.Module) -> None:
    """Xavier-uniform, but for deformable attention, which starts out its own way."""
    xavier_(module)
    for part in module.modules():
        if isinstance(part, DeformableAttention):
            part.reset_parameters()
