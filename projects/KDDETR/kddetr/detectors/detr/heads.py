"""Small feed-forward parts: the MLP, class and box heads, and the transformer's feed-forward."""

import math

from torch import Tensor, nn

PRIOR_PROBABILITY = 0.01


class MLP(nn.Sequential):
    """Linear layers with ReLU between them and nothing after the last."""

    def __init__(self, inputs: int, hidden_dim: int, outputs: int, *, layers: int) -> None:
        widths = [inputs] + [hidden_dim] * (layers - 1) + [outputs]
        modules: list[nn.Module] = []
        for i in range(layers):
            if i:
                modules.append(nn.ReLU())
            modules.append(nn.Linear(widths[i], widths[i + 1]))
        super().__init__(*modules)


class FeedForward(nn.Module):
    """The transformer's position-wise network; a PReLU has one learned slope (DAB-DETR)."""

    def __init__(
        self, *, embed_dim: int, feedforward_dim: int, activation: str, dropout: float = 0.0
    ) -> None:
        super().__init__()
        activations = {"relu": nn.ReLU, "prelu": nn.PReLU}
        if activation not in activations:
            raise ValueError(f"Unknown activation {activation!r}: use one of {list(activations)}.")
        self.inner = nn.Linear(embed_dim, feedforward_dim)
        self.activation = activations[activation]()
        self.dropout = nn.Dropout(dropout)
        self.outer = nn.Linear(feedforward_dim, embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) to (..., C), without the residual."""
        return self.outer(self.dropout(self.activation(self.inner(x))))


def class_head(embed_dim: int, num_classes: int) -> nn.Linear:
    """Sigmoid class logits whose initial probability is 0.01 (Lin et al., focal loss)."""
    head = nn.Linear(embed_dim, num_classes)
    nn.init.constant_(head.bias, -math.log((1 - PRIOR_PROBABILITY) / PRIOR_PROBABILITY))
    return head


def box_head(embed_dim: int, *, size_bias: float = 0.0) -> MLP:
    """A box as an offset, in logits, to the query's reference; starts at "no change".

    Args:
        embed_dim: C.
        size_bias: initial bias of w and h; -2 where a query has no size of its own to start from
            (the first head of one-stage Deformable DETR).
    """
    head = MLP(embed_dim, embed_dim, 4, layers=3)
    nn.init.zeros_(head[-1].weight)
    nn.init.zeros_(head[-1].bias)
    nn.init.constant_(head[-1].bias[2:], size_bias)
    return head


def xavier_(module: nn.Module) -> None:
    """Xavier-uniform for every matrix below ``module``, as all three families start out."""
    for parameter in module.parameters():
        if parameter.dim() > 1:
            nn.init.xavier_uniform_(parameter)
