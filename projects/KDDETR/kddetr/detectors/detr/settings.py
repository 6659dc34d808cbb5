"""The settings that the detection transformers share, and the parts that are built from them
alike.
"""

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from .attention import SelfAttention
from .decoder import DecoderLayer, DeformableCrossAttention
from .deformable_attention import DeformableAttention
from .encoder import DeformableTokenAttention, Encoder, EncoderLayer
from .heads import FeedForward, xavier_
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
        temperature, offset: of the sine embedding of image positions, see
            :class:`ImageSineEmbedding`. Published weights only work with their own.
        eps: of the clamped logit, see :func:`kddetr.boxes.inverse_sigmoid`.
        num_detections: kept per image.
        checkpoint_activations: recompute the layers in the backward pass, which saves memory.
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

    def feed_forward(self) -> FeedForward:
        """The feed-forward network of one layer."""
        return FeedForward(
            embed_dim=self.embed_dim,
            feedforward_dim=self.feedforward_dim,
            activation=self.activation,
            dropout=self.dropout,
        )

    def position_embedding(self) -> ImageSineEmbedding:
        """The sine embedding of image positions."""
        return ImageSineEmbedding(
            features=self.embed_dim // 2, temperature=self.temperature, offset=self.offset
        )

    def projection(
        self, backbone: nn.Module, in_features: Sequence[str], **options: Any
    ) -> FeatureProjection:
        """The neck that projects features of the backbone; options of
        :class:`FeatureProjection`.
        """
        shapes = backbone.output_shape()
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
        groups: of the neck's GroupNorm.
    """

    in_features: Sequence[str] = ("res3", "res4", "res5")
    extra_levels: int = 1
    num_sampling_points: int = 4
    groups: int = 32

    def neck(self, backbone: nn.Module) -> FeatureProjection:
        """The backbone's features, and the extra levels, at width C."""
        return self.projection(
            backbone, self.in_features, extra_levels=self.extra_levels, groups=self.groups
        )

    def build_encoder(self) -> Encoder:
        """An encoder with deformable self-attention over all levels, not initialised yet: call
        :func:`initialise`.
        """
        layers = [
            EncoderLayer(
                attention=DeformableTokenAttention(**self._sampling()),
                feed_forward=self.feed_forward(),
                embed_dim=self.embed_dim,
                dropout=self.dropout,
            )
            for _ in range(self.encoder_layers)
        ]
        return Encoder(
            layers=layers,
            position_embedding=self.position_embedding(),
            num_levels=self._num_levels(),
            embed_dim=self.embed_dim,
            checkpoint_activations=self.checkpoint_activations,
        )

    def build_decoder_layers(self) -> list[DecoderLayer]:
        """The layers of the decoder, not initialised yet: call :func:`initialise`."""
        return [
            DecoderLayer(
                self_attention=SelfAttention(
                    embed_dim=self.embed_dim, num_heads=self.num_heads, dropout=self.dropout
                ),
                cross_attention=DeformableCrossAttention(**self._sampling()),
                feed_forward=self.feed_forward(),
                embed_dim=self.embed_dim,
                dropout=self.dropout,
            )
            for _ in range(self.decoder_layers)
        ]

    def _num_levels(self) -> int:
        return len(self.in_features) + self.extra_levels

    def _sampling(self) -> dict[str, int]:
        return {
            "embed_dim": self.embed_dim,
            "num_heads": self.num_heads,
            "num_levels": self._num_levels(),
            "num_sampling_points": self.num_sampling_points,
        }


def initialise(*modules: nn.Module) -> None:
    """Xavier-uniform weights, except for deformable attention, which has its own initial values."""
    for module in modules:
        xavier_(module)
        for part in module.modules():
            if isinstance(part, DeformableAttention):
                part.reset_parameters()


def takes_settings(kind: type[TransformerSettings], **defaults: Any) -> Callable[..., Any]:
    """A decorator that lets a builder take the fields of a settings class as keyword arguments;
    they are documented at that class.

    Args:
        kind: the settings class; the builder gets an instance of it as its first argument.
        defaults: values that differ from those of the class for this builder.

    Returns:
        the decorator. The decorated builder takes keyword arguments only, and ``inspect.signature``
        shows them all.
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
