"""The neck: projections of backbone features to levels of the model's width."""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn


class FeatureProjection(nn.Module):
    """A 1 x 1 convolution for each feature, and strided 3 x 3 convolutions for extra levels.

    Args:
        in_features, in_channels: names of the backbone features to use, fine to coarse, and widths.
        embed_dim: C.
        extra_levels: number of coarser levels; the first one is computed from the last feature of
            the *backbone*, every other one from the level before it.
        groups: of the GroupNorm after each convolution; 0: no GroupNorm (DAB-DETR).
    """

    def __init__(
        self,
        *,
        in_features: Sequence[str],
        in_channels: Sequence[int],
        embed_dim: int,
        extra_levels: int = 0,
        groups: int = 32,
    ) -> None:
        super().__init__()
        self.in_features = tuple(in_features)
        self.levels = nn.ModuleList(
            _projection(channels, embed_dim, groups, kernel=1) for channels in in_channels
        )
        self.extra = nn.ModuleList(
            _projection(embed_dim if i else in_channels[-1], embed_dim, groups, kernel=3)
            for i in range(extra_levels)
        )

    def forward(self, features: Mapping[str, Tensor]) -> list[Tensor]:
        """Features (B, C_i, H_i, W_i) by name to levels (B, C, H_i, W_i), fine to coarse."""
        inputs = [features[name] for name in self.in_features]
        levels = [project(x) for project, x in zip(self.levels, inputs, strict=True)]
        x = inputs[-1]
        for project in self.extra:
            x = project(x)
            levels.append(x)
        return levels


def _projection(channels: int, embed_dim: int, groups: int, *, kernel: int) -> nn.Sequential:
    stride, padding = (1, 0) if kernel == 1 else (2, 1)
    convolution = nn.Conv2d(channels, embed_dim, kernel, stride=stride, padding=padding)
    if not groups:
        return nn.Sequential(convolution)
    nn.init.xavier_uniform_(convolution.weight)
    nn.init.zeros_(convolution.bias)
    return nn.Sequential(convolution, nn.GroupNorm(groups, embed_dim))
