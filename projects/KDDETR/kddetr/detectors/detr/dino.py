"""DINO (Zhang et al., ICLR 2023): proposals as anchor boxes with learned content, contrastive
denoising, and box losses that look forward twice, on Deformable DETR's encoder and attention.
"""

from torch import nn

from ...ranges import whole
from .criterion import SetCriterion
from .decoder import AnchorPosition
from .denoising import ContrastiveDenoising
from .heads import box_head, class_head
from .matcher import HungarianMatcher
from .proposals import ProposalHead
from .queries import MixedQueries
from .settings import DeformableSettings, initialise, takes_settings
from .transformer import DetectionTransformer


@takes_settings(DeformableSettings)
def dino(
    settings: DeformableSettings,
    *,
    backbone: nn.Module,
    num_classes: int,
    num_queries: int = 900,
    shared_heads: bool = False,
    denoising_number: int = 100,
    label_noise: float = 0.5,
    box_noise: float = 1.0,
    criterion: SetCriterion | None = None,
) -> DetectionTransformer:
    """The published DINO. Where the DINO project and detrex differ, the default is detrex's:
    separate heads for every layer, temperature 10000 and offset -0.5 (its 12-epoch recipe). The
    DINO project, and the configs here, have shared heads, temperature 20 and offset 0.

    Args:
        settings: further keyword arguments, see :class:`DeformableSettings`. With ``res2`` among
            the features it is the 5-scale model.
        backbone: a Detectron2 backbone.
        num_classes: K.
        num_queries: N, the number of proposals that become queries.
        shared_heads: one class head and one box head for all decoder layers (the DINO project),
            else one for each layer (detrex). The heads of the encoder's proposals are separate in
            both.
        denoising_number: the largest number of denoising pairs per image; 0: no denoising.
        label_noise: half of this fraction of the denoising labels is replaced by random classes.
        box_noise: how far the corners of the denoising boxes move, in halves of a box's size; at
            least 0.
        criterion: ground-truth losses; default: weights 1 (class), 5 (L1), 2 (GIoU).

    Raises:
        ValueError: an argument is out of range, or the backbone does not give a feature.
    """
    whole(1, num_classes=num_classes, num_queries=num_queries)
    s = settings
    encoder, layers = s.build_encoder(), s.build_decoder_layers()
    position = AnchorPosition(embed_dim=s.embed_dim, padded=True)
    initialise(*encoder.layers, *layers, position)
    decoder = s.build_decoder(
        layers,
        position,
        num_classes=num_classes,
        shared_heads=shared_heads,
        look_forward_twice=True,
    )
    proposals = ProposalHead(
        embed_dim=s.embed_dim,
        count=num_queries,
        class_head=class_head(s.embed_dim, num_classes),
        box_head=box_head(s.embed_dim),
        class_agnostic=False,
    )
    denoising = ContrastiveDenoising(
        num_classes=num_classes,
        embed_dim=s.embed_dim,
        number=denoising_number,
        label_noise=label_noise,
        box_noise=box_noise,
        eps=s.eps,
    )
    return DetectionTransformer(
        backbone=backbone,
        neck=s.neck(backbone),
        encoder=encoder,
        query_source=MixedQueries(proposals, embed_dim=s.embed_dim),
        decoder=decoder,
        criterion=criterion or SetCriterion(matcher=HungarianMatcher()),
        num_classes=num_classes,
        num_detections=s.num_detections,
        backbone_batching=s.backbone_batching,
        denoising=denoising,
    )
