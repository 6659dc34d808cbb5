"""DAB-DETR (Liu et al., ICLR 2022): learned anchor boxes as queries, dense attention."""

from torch import nn

from .attention import ConditionalCrossAttention, ConditionalSelfAttention
from .criterion import SetCriterion
from .decoder import AnchorPosition, Decoder, DecoderLayer
from .encoder import DenseTokenAttention, Encoder, EncoderLayer
from .heads import MLP, FeedForward, box_head, class_head, xavier_
from .matcher import HungarianMatcher
from .neck import FeatureProjection
from .position_encoding import ImageSineEmbedding
from .queries import AnchorQueries
from .transformer import DetectionTransformer


def dab_detr(
    *,
    backbone: nn.Module,
    num_classes: int,
    in_feature: str = "res5",
    num_queries: int = 300,
    anchor_size: float | None = None,
    width: int = 256,
    heads: int = 8,
    hidden: int = 2048,
    encoder_layers: int = 6,
    decoder_layers: int = 6,
    dropout: float = 0.0,
    activation: str = "prelu",
    temperature: float = 20.0,
    offset: float = 0.0,
    anchor_temperature: float = 10000.0,
    eps: float = 1e-3,
    num_detections: int = 300,
    criterion: SetCriterion | None = None,
    checkpoint_activations: bool = False,
) -> DetectionTransformer:
    """The published model; the decoder's attention to the image respects padding, as the DAB-DETR
    project does and detrex does not.

    Args:
        backbone: a Detectron2 backbone.
        num_classes: K.
        in_feature: the one feature used.
        num_queries: N.
        anchor_size: initial width and height of the anchors, see :class:`AnchorQueries`.
        width: C.
        heads: of every attention.
        hidden: width of the feed-forwards.
        encoder_layers, decoder_layers: their number.
        dropout: 0 as published.
        activation: of the feed-forwards.
        temperature, offset, anchor_temperature: of the image's and the anchors' sine embeddings.
        eps: of the clamped logit.
        num_detections: kept per image.
        criterion: default weights 1, 5, 2.
        checkpoint_activations: recompute the transformer's layers in the backward pass.
    """

    def feed_forward() -> FeedForward:
        return FeedForward(width=width, hidden=hidden, activation=activation, dropout=dropout)

    encoder = Encoder(
        layers=[
            EncoderLayer(
                attention=DenseTokenAttention(width=width, heads=heads, dropout=dropout),
                feed_forward=feed_forward(),
                width=width,
                dropout=dropout,
            )
            for _ in range(encoder_layers)
        ],
        position_embedding=ImageSineEmbedding(
            features=width // 2, temperature=temperature, offset=offset
        ),
        position_scale=MLP(width, width, width, layers=2),
        width=width,
        checkpoint_activations=checkpoint_activations,
    )
    layers = [
        DecoderLayer(
            self_attention=ConditionalSelfAttention(width=width, heads=heads, dropout=dropout),
            cross_attention=ConditionalCrossAttention(
                width=width, heads=heads, first=i == 0, dropout=dropout
            ),
            feed_forward=feed_forward(),
            width=width,
            dropout=dropout,
        )
        for i in range(decoder_layers)
    ]
    position = AnchorPosition(width=width, temperature=anchor_temperature, modulated=True)
    for part in (encoder, *layers, position):
        xavier_(part)
    decoder = Decoder(
        layers=layers,
        position=position,
        class_heads=[class_head(width, num_classes)],
        box_heads=[box_head(width)],
        width=width,
        norm=nn.LayerNorm(width),
        look_forward_twice=True,
        eps=eps,
        checkpoint_activations=checkpoint_activations,
    )
    return DetectionTransformer(
        backbone=backbone,
        neck=FeatureProjection(
            in_features=[in_feature],
            in_channels=[backbone.output_shape()[in_feature].channels],
            width=width,
            groups=0,
        ),
        encoder=encoder,
        query_source=AnchorQueries(num_queries, size=anchor_size),
        decoder=decoder,
        criterion=criterion or SetCriterion(matcher=HungarianMatcher()),
        num_classes=num_classes,
        num_detections=num_detections,
    )
