"""DAB-DETR (Liu et al., ICLR 2022): learned anchor boxes as queries, dense attention."""

from torch import nn

from .attention import ConditionalCrossAttention, ConditionalSelfAttention
from .criterion import SetCriterion
from .decoder import AnchorPosition, Decoder, DecoderLayer
from .encoder import DenseTokenAttention, Encoder, EncoderLayer
from .heads import MLP, box_head, class_head
from .matcher import HungarianMatcher
from .queries import AnchorQueries
from .settings import TransformerSettings, initialise, takes_settings
from .transformer import DetectionTransformer


@takes_settings(TransformerSettings, activation="prelu", temperature=20.0, offset=0.0)
def dab_detr(
    settings: TransformerSettings,
    *,
    backbone: nn.Module,
    num_classes: int,
    in_feature: str = "res5",
    num_queries: int = 300,
    anchor_size: float | None = None,
    anchor_temperature: float = 10000.0,
    criterion: SetCriterion | None = None,
) -> DetectionTransformer:
    """The published DAB-DETR. Its attention to the image masks padding, as in the authors' project;
    detrex does not mask it.

    Args:
        settings: further keyword arguments, see :class:`TransformerSettings`.
        backbone: a Detectron2 backbone.
        num_classes: K.
        in_feature: the one feature of the backbone that is used.
        num_queries: N.
        anchor_size: initial width and height of the anchors, see :class:`AnchorQueries`.
        anchor_temperature: of the sine embedding of the anchors.
        criterion: ground-truth losses; default: weights 1 (class), 5 (L1), 2 (GIoU).
    """
    s = settings
    encoder = Encoder(
        layers=[
            EncoderLayer(
                attention=DenseTokenAttention(
                    embed_dim=s.embed_dim, num_heads=s.num_heads, dropout=s.dropout
                ),
                feed_forward=s.feed_forward(),
                embed_dim=s.embed_dim,
                dropout=s.dropout,
            )
            for _ in range(s.encoder_layers)
        ],
        position_embedding=s.position_embedding(),
        position_scale=MLP(s.embed_dim, s.embed_dim, s.embed_dim, layers=2),
        embed_dim=s.embed_dim,
        checkpoint_activations=s.checkpoint_activations,
    )
    layers = [
        DecoderLayer(
            self_attention=ConditionalSelfAttention(
                embed_dim=s.embed_dim, num_heads=s.num_heads, dropout=s.dropout
            ),
            cross_attention=ConditionalCrossAttention(
                embed_dim=s.embed_dim, num_heads=s.num_heads, first=i == 0, dropout=s.dropout
            ),
            feed_forward=s.feed_forward(),
            embed_dim=s.embed_dim,
            dropout=s.dropout,
        )
        for i in range(s.decoder_layers)
    ]
    position = AnchorPosition(embed_dim=s.embed_dim, temperature=anchor_temperature, modulated=True)
    initialise(encoder, *layers, position)
    decoder = Decoder(
        layers=layers,
        position=position,
        class_heads=[class_head(s.embed_dim, num_classes)],
        box_heads=[box_head(s.embed_dim)],
        embed_dim=s.embed_dim,
        norm=nn.LayerNorm(s.embed_dim),
        look_forward_twice=True,
        eps=s.eps,
        checkpoint_activations=s.checkpoint_activations,
    )
    return DetectionTransformer(
        backbone=backbone,
        neck=s.projection(backbone, [in_feature], groups=0),
        encoder=encoder,
        query_source=AnchorQueries(num_queries, size=anchor_size),
        decoder=decoder,
        criterion=criterion or SetCriterion(matcher=HungarianMatcher()),
        num_classes=num_classes,
        num_detections=s.num_detections,
    )
