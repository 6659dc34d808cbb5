"""Deformable DETR (Zhu et al., ICLR 2021) in its published variants, and DAB-Deformable-DETR."""

from torch import nn

from ...ranges import one_of, whole
from .criterion import SetCriterion
from .decoder import AnchorPosition, LearnedPosition
from .heads import box_head, class_head
from .matcher import HungarianMatcher
from .proposals import ProposalHead
from .queries import AnchorQueries, EmbeddingQueries, ProposalQueries
from .settings import DeformableSettings, initialise, takes_settings
from .transformer import DetectionTransformer

VARIANTS = ("plain", "refine", "two_stage", "anchors")


@takes_settings(DeformableSettings, feedforward_dim=1024, dropout=0.1)
def deformable_detr(
    settings: DeformableSettings,
    *,
    backbone: nn.Module,
    num_classes: int,
    variant: str = "refine",
    num_queries: int = 300,
    anchor_size: float | None = None,
    anchor_centres: str = "uniform",
    criterion: SetCriterion | None = None,
) -> DetectionTransformer:
    """A published Deformable DETR. By default ``eps`` and ``num_detections`` are detrex's; the
    configs set the values of the authors (1e-5 and 100).

    Args:
        settings: further keyword arguments, see :class:`DeformableSettings`.
        backbone: a Detectron2 backbone.
        num_classes: K.
        variant: "plain": learned embeddings as queries, one head for all decoder layers. "refine":
            the same with iterative box refinement and heads of their own for every layer.
            "two_stage": refinement, and the encoder's best proposals as queries. "anchors":
            refinement, and learned anchor boxes as queries (DAB-Deformable-DETR), where the
            positional embedding is computed from the box in every layer, the heads get a norm, and
            the box loss looks forward twice.
        num_queries: N.
        anchor_size, anchor_centres: of the variant "anchors", see :func:`dab_detr`.
        criterion: ground-truth losses; default: weights 2 (class), 5 (L1), 2 (GIoU).

    Raises:
        ValueError: an unknown variant, an argument that is out of range, or a feature that the
            backbone does not give.
    """
    one_of(VARIANTS, variant=variant)
    whole(1, num_classes=num_classes, num_queries=num_queries)
    s, anchors = settings, variant == "anchors"
    encoder, layers = s.build_encoder(), s.build_decoder_layers()
    position = AnchorPosition(embed_dim=s.embed_dim) if anchors else LearnedPosition()
    initialise(*encoder.layers, *layers, position)
    decoder = s.build_decoder(
        layers,
        position,
        num_classes=num_classes,
        shared_heads=variant == "plain",
        norm=anchors,
        # A query that is only a centre starts with a small box: sigmoid(-2) = 0.12.
        size_bias=-2.0 if variant in ("plain", "refine") else 0.0,
        refine=variant != "plain",
        look_forward_twice=anchors,
    )
    neck = s.neck(backbone)
    if anchors:
        source = AnchorQueries(num_queries, size=anchor_size, centres=anchor_centres)
    elif variant == "two_stage":
        proposals = ProposalHead(
            embed_dim=s.embed_dim,
            count=num_queries,
            class_head=class_head(s.embed_dim, num_classes),
            box_head=box_head(s.embed_dim),
            class_agnostic=True,
        )
        source = ProposalQueries(proposals, embed_dim=s.embed_dim)
    else:
        source = EmbeddingQueries(num_queries, embed_dim=s.embed_dim)
    return DetectionTransformer(
        backbone=backbone,
        neck=neck,
        encoder=encoder,
        query_source=source,
        decoder=decoder,
        criterion=criterion or SetCriterion(matcher=HungarianMatcher(), class_weight=2.0),
        num_classes=num_classes,
        num_detections=s.num_detections,
        backbone_batching=s.backbone_batching,
    )
