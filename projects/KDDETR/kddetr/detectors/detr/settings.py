"""The settings that the detection transformers share, and the parts that are built from them
alike.
"""

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from ...ranges import fraction, names, positive, whole
from ...returned import described
from .attention import SelfAttention
from .decoder import Decoder, DecoderLayer, DeformableCrossAttention
from .deformable_attention import DeformableAttention
from .encoder import DeformableTokenAttention, Encoder, EncoderLayer
from .heads import FeedForward, box_head, class_head
from .neck import FeatureProjection
from .position_encoding import ImageSineEmbedding


@dataclass(frozen=True, kw_only=True)
class TransformerSettings:
    """Keyword arguments of every builder (``dab_detr``, ``deformable_detr``, ``dino``).

    Args:
        embed_dim: C, width of the embeddings.
        num_heads: of every attention.
        feedforward_dim: width of the feed-forward networks.
        encoder_layers, decoder_layers: how many there are.
        dropout: of attention weights, feed-forward networks and residual branches.
        activation: of the feed-forward networks, "relu" or "prelu".
        temperature, offset: of the sine embedding of image positions. Published weights only work
            with their own.
        eps: least distance of a box coordinate from 0 and 1 before its logit is taken, see
            :func:`kddetr.boxes.inverse_sigmoid`.
        num_detections: kept per image.
        checkpoint_activations: recompute the layers in the backward pass, which saves memory.
        backbone_batching: "by_size": images of one size go through the backbone together;
            "padded": all images of a batch, padded with zeros.

    Raises:
        ValueError: a setting is out of range, or ``embed_dim`` is no multiple of 4 and of
            ``num_heads``.
    """

    embed_dim: int = 256
    num_heads: int = 8
    feedforward_dim: int = 2048
    encoder_layers: int = 6
    decoder_layers: int = 6
    dropout: float = 0.0
    activation: str = "relu"
    temperature: float = 10000.0
    offset: float = -0.5
    eps: float = 1e-3
    num_detections: int = 300
    checkpoint_activations: bool = False
    backbone_batching: str = "by_size"

    def __post_init__(self) -> None:
        counted = ("embed_dim", "num_heads", "feedforward_dim", "decoder_layers", "num_detections")
        whole(1, **{name: getattr(self, name) for name in counted})
        whole(0, encoder_layers=self.encoder_layers)
        fraction(dropout=self.dropout, eps=self.eps)
        positive(temperature=self.temperature, eps=self.eps)
        if self.embed_dim % self.num_heads:
            raise ValueError(
                f"embed_dim {self.embed_dim} is not a multiple of num_heads {self.num_heads}."
            )
        if self.embed_dim % 4:
            raise ValueError(
                f"embed_dim {self.embed_dim} is not a multiple of 4, for the sines and cosines of"
                " two coordinates."
            )

    def attention(self) -> dict[str, Any]:
        """The arguments of a dense attention."""
        return {"embed_dim": self.embed_dim, "num_heads": self.num_heads, "dropout": self.dropout}

    def around_attention(self) -> dict[str, Any]:
        """The arguments of an encoder or decoder layer beside its attention."""
        feed_forward = FeedForward(
            embed_dim=self.embed_dim,
            feedforward_dim=self.feedforward_dim,
            activation=self.activation,
            dropout=self.dropout,
        )
        return {"feed_forward": feed_forward, "embed_dim": self.embed_dim, "dropout": self.dropout}

    def encoder_with(self, attention: Callable[[], nn.Module], **options: Any) -> Encoder:
        """An encoder with new attention in each layer, not initialised yet: call
        :func:`initialise`. The options are those of :class:`Encoder`.
        """
        return Encoder(
            layers=[
                EncoderLayer(attention=attention(), **self.around_attention())
                for _ in range(self.encoder_layers)
            ],
            position_embedding=ImageSineEmbedding(
                features=self.embed_dim // 2, temperature=self.temperature, offset=self.offset
            ),
            embed_dim=self.embed_dim,
            checkpoint_activations=self.checkpoint_activations,
            **options,
        )

    def build_decoder(
        self,
        layers: Sequence[DecoderLayer],
        position: nn.Module,
        *,
        num_classes: int,
        shared_heads: bool,
        norm: bool = True,
        size_bias: float = 0.0,
        **options: Any,
    ) -> Decoder:
        """A decoder with its heads: one class head and one box head for all layers, or one for each
        layer. ``size_bias`` is that of the first :func:`box_head`; for the rest see
        :class:`Decoder`.
        """
        head_sets = 1 if shared_heads else len(layers)
        return Decoder(
            layers=layers,
            position=position,
            class_heads=[class_head(self.embed_dim, num_classes) for _ in range(head_sets)],
            box_heads=[
                box_head(self.embed_dim, size_bias=0.0 if i else size_bias)
                for i in range(head_sets)
            ],
            embed_dim=self.embed_dim,
            norm=nn.LayerNorm(self.embed_dim) if norm else None,
            eps=self.eps,
            checkpoint_activations=self.checkpoint_activations,
            **options,
        )

    def projection(
        self, backbone: nn.Module, in_features: Sequence[str], **options: Any
    ) -> FeatureProjection:
        """The neck that projects features of the backbone; options of
        :class:`FeatureProjection`. A ValueError where the backbone does not give the features.
        """
        if not hasattr(backbone, "output_shape"):
            raise ValueError(
                f"backbone is {described(backbone)}, which has no output_shape: take a backbone of"
                " kddetr.detectors or of Detectron2."
            )
        shapes = backbone.output_shape()
        names("the features that the backbone gives", shapes, in_features=in_features)
        channels = [shapes[name].channels for name in in_features]
        return FeatureProjection(
            in_features=in_features, in_channels=channels, embed_dim=self.embed_dim, **options
        )


@dataclass(frozen=True, kw_only=True)
class DeformableSettings(TransformerSettings):
    """:class:`TransformerSettings` and those of multi-scale deformable attention.

    Args:
        in_features: names of the backbone's features, fine to coarse.
        extra_levels: coarser levels added by strided convolutions on the last feature.
        num_sampling_points: sampling points per attention head and level.
        groups: of the neck's GroupNorm; 0: no GroupNorm.

    Raises:
        ValueError: a setting is out of range, or ``embed_dim`` is no multiple of ``groups``.
    """

    in_features: Sequence[str] = ("res3", "res4", "res5")
    extra_levels: int = 1
    num_sampling_points: int = 4
    groups: int = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        whole(0, extra_levels=self.extra_levels, groups=self.groups)
        whole(1, num_sampling_points=self.num_sampling_points)
        if self.groups and self.embed_dim % self.groups:
            raise ValueError(
                f"embed_dim {self.embed_dim} is not a multiple of groups {self.groups}."
            )

    def neck(self, backbone: nn.Module) -> FeatureProjection:
        """The backbone's features, and the extra levels, at width C."""
        return self.projection(
            backbone, self.in_features, extra_levels=self.extra_levels, groups=self.groups
        )

    def build_encoder(self) -> Encoder:
        """An encoder with deformable self-attention over all levels, not initialised yet: call
        :func:`initialise`.
        """
        sampling = self._sampling()
        return self.encoder_with(
            lambda: DeformableTokenAttention(**sampling), num_levels=sampling["num_levels"]
        )

    def build_decoder_layers(self) -> list[DecoderLayer]:
        """The layers of the decoder, not initialised yet: call :func:`initialise`."""
        return [
            DecoderLayer(
                self_attention=SelfAttention(**self.attention()),
                cross_attention=DeformableCrossAttention(**self._sampling()),
                **self.around_attention(),
            )
            for _ in range(self.decoder_layers)
        ]

    def _sampling(self) -> dict[str, int]:
        return {
            "embed_dim": self.embed_dim,
            "num_heads": self.num_heads,
            "num_levels": len(self.in_features) + self.extra_levels,
            "num_sampling_points": self.num_sampling_points,
        }


def initialise(*modules: nn.Module) -> None:
    """Xavier-uniform weights, except for deformable attention, which has its own initial values."""
    for module in modules:
        for parameter in module.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        for part in module.modules():
            if isinstance(part, DeformableAttention):
                part.reset_parameters()


def takes_settings(kind: type[TransformerSettings], **defaults: Any) -> Callable[..., Any]:
    """A decorator that lets a builder take the fields of a settings class as keyword arguments.

    The builder gets an instance of the class, with other ``defaults``, as its first argument. The
    decorated builder takes keyword arguments only, and ``inspect.signature`` shows them all.
    """

    def decorate(builder: Callable[..., Any]) -> Callable[..., Any]:
        fields = {
            name: field.replace(default=defaults.get(name, field.default))
            for name, field in inspect.signature(kind).parameters.items()
        }

        @functools.wraps(builder)
        def build(**arguments: Any) -> Any:
            given = {name: arguments.pop(name) for name in fields if name in arguments}
            return builder(kind(**{**defaults, **given}), **arguments)

        _, *own = inspect.signature(builder).parameters.values()
        build.__signature__ = inspect.Signature([*own, *fields.values()])
        return build

    return decorate
