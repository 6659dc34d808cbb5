"""Feed-forward parts: MLP, class head, box head, and the feed-forward network of a layer.

Shape letters: K classes, C embedding width.
"""

import math
from itertools import pairwise

from torch import Tensor, nn

from ...ranges import one_of

ACTIVATIONS = {"relu": nn.ReLU, "prelu": nn.PReLU}
PRIOR_PROBABILITY = 0.01  # of every class at the start of training


class MLP(nn.Sequential):
    """Linear layers with a ReLU between every two of them.

    torchvision's MLP has a dropout after every ReLU, so its weights have other names.
    """

    def __init__(self, in_dim: int, hidden_dim: int, out_dim: int, *, layers: int) -> None:
        widths = pairwise([in_dim, *[hidden_dim] * (layers - 1), out_dim])
        modules = [m for i, o in widths for m in (nn.Linear(i, o), nn.ReLU())]
        super().__init__(*modules[:-1])


class FeedForward(nn.Module):
    """The feed-forward network of a transformer layer: it maps each token or query by itself.

    Args:
        embed_dim, feedforward_dim: widths outside and between the two linear layers.
        activation: "relu", or "prelu", which has one learned slope (DAB-DETR).
        dropout: after the activation.

    Raises:
        ValueError: an unknown activation.
    """

    def __init__(
        self, *, embed_dim: int, feedforward_dim: int, activation: str, dropout: float = 0.0
    ) -> None:
        super().__init__()
        one_of(ACTIVATIONS, activation=activation)
        self.inner = nn.Linear(embed_dim, feedforward_dim)
        self.activation = ACTIVATIONS[activation]()
        self.dropout = nn.Dropout(dropout)
        self.outer = nn.Linear(feedforward_dim, embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) to (..., C), without the residual."""
        return self.outer(self.dropout(self.activation(self.inner(x))))


def class_head(embed_dim: int, num_classes: int) -> nn.Linear:
    """A linear layer from C to K class logits; every class starts at a probability of 0.01 (Lin et
    al., Focal Loss).
    """
    head = nn.Linear(embed_dim, num_classes)
    nn.init.constant_(head.bias, -math.log((1 - PRIOR_PROBABILITY) / PRIOR_PROBABILITY))
    return head


def box_head(embed_dim: int, *, size_bias: float = 0.0) -> MLP:
    """An MLP from C to the offset of a box, in logits, from its reference; the offset starts at 0,
    that of width and height at ``size_bias``.
    """
    head = MLP(embed_dim, embed_dim, 4, layers=3)
    nn.init.zeros_(head[-1].weight)
    nn.init.zeros_(head[-1].bias)
    nn.init.constant_(head[-1].bias[2:], size_bias)
    return head
