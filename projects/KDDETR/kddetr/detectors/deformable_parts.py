"""What Deformable DETR and DINO are made of alike: levels, encoder and decoder layers."""

from collections.abc import Sequence

from torch import nn

from .attention import SelfAttention
from .decoder import DecoderLayer, DeformableCrossAttention
from .deformable_attention import DeformableAttention
from .encoder import DeformableTokenAttention, Encoder, EncoderLayer
from .heads import FeedForward, xavier_
from .neck import FeatureProjection
from .position_encoding import ImageSineEmbedding


class DeformableParts:
    """Builds the parts of one detector; :func:`initialise` gives them their initial values.

    Args:
        width: C.
        heads: of every attention.
        levels: M.
        points: sampled per head and level.
        hidden: width of the feed-forwards.
        dropout: on attention, feed-forwards and residuals.
        activation: of the feed-forwards.
        checkpoint_activations: recompute the encoder's layers in the backward pass.
    """

    def __init__(
        self,
        *,
        width: int,
        heads: int,
        levels: int,
        points: int,
        hidden: int,
        dropout: float,
        activation: str,
        checkpoint_activations: bool,
    ) -> None:
        self.width, self.heads, self.levels, self.dropout = width, heads, levels, dropout
        self.hidden, self.activation = hidden, activation
        self.sampling = {"width": width, "heads": heads, "levels": levels, "points": points}
        self.checkpoint_activations = checkpoint_activations

    def neck(
        self, backbone: nn.Module, in_features: Sequence[str], extra_levels: int, groups: int
    ) -> FeatureProjection:
        """The backbone's features, and ``extra_levels`` more, as levels of width C."""
        shapes = backbone.output_shape()
        return FeatureProjection(
            in_features=in_features,
            in_channels=[shapes[name].channels for name in in_features],
            width=self.width,
            extra_levels=extra_levels,
            groups=groups,
        )

    def encoder(self, layers: int, *, temperature: float, offset: float) -> Encoder:
        """Deformable self-attention over all levels; see :class:`ImageSineEmbedding`."""
        return Encoder(
            layers=[
                EncoderLayer(
                    attention=DeformableTokenAttention(**self.sampling),
                    feed_forward=self._feed_forward(),
                    width=self.width,
                    dropout=self.dropout,
                )
                for _ in range(layers)
            ],
            position_embedding=ImageSineEmbedding(
                features=self.width // 2, temperature=temperature, offset=offset
            ),
            levels=self.levels,
            width=self.width,
            checkpoint_activations=self.checkpoint_activations,
        )

    def decoder_layers(self, count: int) -> list[DecoderLayer]:
        """Self-attention, deformable attention to the image, feed-forward."""
        return [
            DecoderLayer(
                self_attention=SelfAttention(
                    width=self.width, heads=self.heads, dropout=self.dropout
                ),
                cross_attention=DeformableCrossAttention(**self.sampling),
                feed_forward=self._feed_forward(),
                width=self.width,
                dropout=self.dropout,
            )
            for _ in range(count)
        ]

    def _feed_forward(self) -> FeedForward:
        return FeedForward(
            width=self.width,
            hidden=self.hidden,
            activation=self.activation,
            dropout=self.dropout,
        )


def initialise(*modules: nn.Module) -> None:
    """Xavier-uniform, but for deformable attention, which starts out its own way."""
    for module in modules:
        xavier_(module)
        for part in module.modules():
            if isinstance(part, DeformableAttention):
                part.reset_parameters()
