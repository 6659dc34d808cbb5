"""ResNets for torchvision's weights, and a small convolutional backbone for small images."""

from collections.abc import Sequence

import torch
from detectron2.layers import get_norm
from detectron2.modeling.backbone import Backbone
from detectron2.modeling.backbone.resnet import BasicStem, ResNet
from torch import Tensor, nn

from ...ranges import names, one_of, whole

DEPTHS = (18, 34, 50, 101, 152)
# Of Detectron2; "" is no norm.
NORMS = ("FrozenBN", "BN", "SyncBN", "nnSyncBN", "naiveSyncBN", "naiveSyncBN_N", "GN", "LN", "")


def resnet(
    *,
    depth: int,
    out_features: Sequence[str] = ("res3", "res4", "res5"),
    freeze_at: int = 1,
    norm: str = "FrozenBN",
    dilation: bool = False,
) -> ResNet:
    """A ResNet for torchvision's weights: RGB, stride in the 3 x 3 convolution, batch norm frozen.

    Args:
        depth: 18, 34, 50, 101 or 152.
        out_features: names among res2 to res5.
        freeze_at: 1 freezes the stem (detrex), 2 also res2 (the authors' projects), 0 nothing.
        norm: Detectron2's name of a norm.
        dilation: res5 has stride 16 instead of 32 and dilated convolutions ("DC5"); names
            and shapes of the weights stay the same.

    Raises:
        ValueError: ``dilation`` of a depth below 50, whose blocks have none, or an argument that is
            out of range.
    """
    if depth not in DEPTHS:
        raise ValueError(f"depth must be {', '.join(map(str, DEPTHS))}, not {depth!r}.")
    names("its stages", ("stem", "res2", "res3", "res4", "res5"), out_features=out_features)
    one_of(NORMS, norm=norm)
    whole(0, freeze_at=freeze_at)
    options = {} if depth < 50 else {"stride_in_1x1": False}
    stages = ResNet.make_default_stages(depth, norm=norm, **options)
    if dilation:
        _dilate(stages[-1], depth)
    stem = BasicStem(in_channels=3, out_channels=64, norm=norm)
    return ResNet(stem, stages, out_features=list(out_features), freeze_at=freeze_at)


def _dilate(stage: Sequence[nn.Module], depth: int) -> None:
    """Replace the stride of a stage by dilation, as torchvision and the published detectors do.

    The first block keeps dilation 1; Detectron2's own option dilates it too, which is another
    network.
    """
    if depth < 50:
        raise ValueError(f"A ResNet-{depth} has no dilated form; take a depth of 50 or more.")
    first, *others = stage
    first.stride = 1
    first.conv2.stride = first.shortcut.stride = (1, 1)
    for block in others:
        block.conv2.dilation = block.conv2.padding = (2, 2)


class TinyConvNet(Backbone):
    """Residual stages of stride 2, 4, 8, ..., for images of about 100 pixels.

    Args:
        channels: of each stage; stage i has stride 2 ** (i + 1) and is called ``stage{i}``.
        blocks: residual blocks of each stage.
        out_features: names of the stages to return; default the last.
        norm: Detectron2's name of a norm.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        *,
        channels: Sequence[int],
        blocks: Sequence[int],
        out_features: Sequence[str] | None = None,
        norm: str = "BN",
    ) -> None:
        super().__init__()
        stages = [f"stage{i}" for i in range(len(channels))]
        if len(blocks) != len(channels) or not stages:
            raise ValueError(
                f"channels {list(channels)} and blocks {list(blocks)} must have one number for each"
                " stage, and there must be a stage."
            )
        whole(1, **{f"channels of {name}": n for name, n in zip(stages, channels)})
        whole(0, **{f"blocks of {name}": n for name, n in zip(stages, blocks)})
        one_of(NORMS, norm=norm)
        self._out_features = list(out_features or stages[-1:])
        names("its stages", stages, out_features=self._out_features)
        self._out_feature_channels = dict(zip(stages, channels, strict=True))
        self._out_feature_strides = {name: 2 ** (i + 1) for i, name in enumerate(stages)}
        self.stages = nn.ModuleDict()
        inputs = 3
        for (name, width), count in zip(self._out_feature_channels.items(), blocks, strict=True):
            down = nn.Sequential(
                nn.Conv2d(inputs, width, 3, stride=2, padding=1, bias=False),
                get_norm(norm, width),
                nn.ReLU(),
            )
            residual = [ResidualBlock(width, norm) for _ in range(count)]
            self.stages[name] = nn.Sequential(down, *residual)
            inputs = width

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """(B, 3, H, W) to features by name."""
        features = {}
        # Convolutions on a CPU are faster with the channels of a pixel side by side in memory.
        x = x.contiguous(memory_format=torch.channels_last)
        for name, stage in self.stages.items():
            x = stage(x)
            features[name] = x
        return {name: features[name] for name in self._out_features}


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions with norms, and a skip connection around them."""

    def __init__(self, width: int, norm: str) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            get_norm(norm, width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            get_norm(norm, width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.body(x)).relu()
