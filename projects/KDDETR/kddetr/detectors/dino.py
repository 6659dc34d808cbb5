"""DINO (Zhang et al., ICLR 2023): proposals as anchor boxes with learned content, contrastive
denoising, and box losses that look forward twice, on Deformable DETR's encoder and attention.
"""

from collections.abc import Sequence

from torch import nn

from .criterion import SetCriterion
from .decoder import AnchorPosition, Decoder
from .deformable_parts import DeformableParts, initialise
from .denoising import ContrastiveDenoising
from .heads import box_head, class_head
from .matcher import HungarianMatcher
from .proposals import ProposalHead
from .queries import MixedQueries
from .transformer import DetectionTransformer


def dino(
    *,
    backbone: nn.Module,
    num_classes: int,
    in_features: Sequence[str] = ("res3", "res4", "res5"),
    extra_levels: int = 1,
    num_queries: int = 900,
    width: int = 256,
    heads: int = 8,
    points: int = 4,
    hidden: int = 2048,
    encoder_layers: int = 6,
    decoder_layers: int = 6,
    dropout: float = 0.0,
    activation: str = "relu",
    groups: int = 32,
    shared_heads: bool = False,
    temperature: float = 10000.0,
    offset: float = -0.5,
    eps: float = 1e-3,
    denoising_number: int = 100,
    label_noise: float = 0.5,
    box_noise: float = 1.0,
    num_detections: int = 300,
    criterion: SetCriterion | None = None,
    checkpoint_activations: bool = False,
) -> DetectionTransformer:
    """The published model. Where the DINO project and detrex differ the default is detrex's and a
    parameter gives the other; the configs say which.

    Args:
        backbone: a Detectron2 backbone.
        num_classes: K.
        in_features: backbone features, fine to coarse; with ``res2`` the 5-scale model.
        extra_levels: strided convolutions on top of the last one.
        num_queries: N, proposals that become queries.
        width: C.
        heads: of every attention.
        points: sampled per head and level.
        hidden: width of the feed-forwards.
        encoder_layers, decoder_layers: their number.
        dropout: 0 as published.
        activation: of the feed-forwards.
        groups: of the neck's GroupNorm.
        shared_heads: one class and one box head for all decoder layers (the DINO project), not
            one a layer (detrex). The encoder's proposals have their own either way.
        temperature, offset: of the image position embedding: 10000 and -0.5 in detrex's 12-epoch
            recipe, 20 and 0 in the DINO project and detrex's 24-epoch one.
        eps: of the clamped logit.
        denoising_number: denoising pairs an image, 0: no denoising.
        label_noise, box_noise: see :class:`ContrastiveDenoising`.
        num_detections: kept per image.
        criterion: default weights 1, 5, 2.
        checkpoint_activations: recompute the transformer's layers in the backward pass.
    """
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
    position = AnchorPosition(width=width, padded=True)
    initialise(*encoder.layers, *layers, position)
    head_sets = 1 if shared_heads else decoder_layers
    decoder = Decoder(
        layers=layers,
        position=position,
        class_heads=[class_head(width, num_classes) for _ in range(head_sets)],
        box_heads=[box_head(width) for _ in range(head_sets)],
        width=width,
        norm=nn.LayerNorm(width),
        look_forward_twice=True,
        eps=eps,
        checkpoint_activations=checkpoint_activations,
    )
    proposals = ProposalHead(
        width=width,
        count=num_queries,
        class_head=class_head(width, num_classes),
        box_head=box_head(width),
        class_agnostic=False,
    )
    denoising = ContrastiveDenoising(
        num_classes=num_classes,
        width=width,
        number=denoising_number,
        label_noise=label_noise,
        box_noise=box_noise,
        eps=eps,
    )
    return DetectionTransformer(
        backbone=backbone,
        neck=parts.neck(backbone, in_features, extra_levels, groups),
        encoder=encoder,
        query_source=MixedQueries(proposals, width=width),
        decoder=decoder,
        criterion=criterion or SetCriterion(matcher=HungarianMatcher()),
        num_classes=num_classes,
        num_detections=num_detections,
        denoising=denoising,
    )
