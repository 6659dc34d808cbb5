"""DAB-DETR (Liu et al., ICLR 2022): learned anchor boxes as queries, dense attention."""

from torch import nn

from ...ranges import positive, whole
from .attention import ConditionalCrossAttention, ConditionalSelfAttention
from .criterion import SetCriterion
from .decoder import AnchorPosition, DecoderLayer
from .encoder import DenseTokenAttention
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
    anchor_centres: str = "uniform",
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
        anchor_size: initial width and height of the anchors, as a fraction of the image's; None:
            random, as published. Short trainings on small objects gain much from anchors of the
            objects' size.
        anchor_centres: how the initial centres of the anchors are drawn: "uniform" over the image,
            or "normal_logit", the sigmoid of N(0, 1), as in the published KD-DETR code.
        anchor_temperature: of the sine embedding of the anchors.
        criterion: ground-truth losses; default: weights 1 (class), 5 (L1), 2 (GIoU).

    Raises:
        ValueError: an argument is out of range, or the backbone does not give the feature.
    """
    whole(1, num_classes=num_classes, num_queries=num_queries)
    positive(anchor_temperature=anchor_temperature)
    s = settings
    encoder = s.encoder_with(lambda: DenseTokenAttention(**s.attention()), scale_position=True)
    layers = [
        DecoderLayer(
            self_attention=ConditionalSelfAttention(**s.attention()),
            cross_attention=ConditionalCrossAttention(**s.attention(), first=i == 0),
            **s.around_attention(),
        )
        for i in range(s.decoder_layers)
    ]
    position = AnchorPosition(embed_dim=s.embed_dim, temperature=anchor_temperature, modulated=True)
    initialise(encoder, *layers, position)
    decoder = s.build_decoder(
        layers, position, num_classes=num_classes, shared_heads=True, look_forward_twice=True
    )
    return DetectionTransformer(
        backbone=backbone,
        neck=s.projection(backbone, [in_feature], groups=0),
        encoder=encoder,
        query_source=AnchorQueries(num_queries, size=anchor_size, centres=anchor_centres),
        decoder=decoder,
        criterion=criterion or SetCriterion(matcher=HungarianMatcher()),
        num_classes=num_classes,
        num_detections=s.num_detections,
        backbone_batching=s.backbone_batching,
    )
