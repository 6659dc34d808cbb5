"""Any network of timm that yields features, as a Detectron2 backbone.

Features are named by their strides, like those of a ResNet: res2 to res5 have strides 4 to 32. timm
is an optional extra that is imported when a backbone is built. Only the network comes from timm;
weights come from a checkpoint, and nothing is downloaded.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling.backbone import Backbone
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn
from torch.nn import functional as F

from ...errors import did_you_mean
from ...ranges import names, whole

_FIXED = {"pretrained", "features_only", "out_indices", "in_chans", "checkpoint_path"}


def timm_backbone(
    *,
    name: str,
    out_features: Sequence[str] = ("res3", "res4", "res5"),
    freeze_at: int = 0,
    frozen_norm: bool = True,
    layer_norm: bool = False,
    divisor: int | None = None,
    checkpoint_activations: bool = False,
    options: Mapping[str, Any] | None = None,
) -> "TimmBackbone":
    """A network of timm with random weights; stages after the last feature are not built.

    Args:
        name: timm's name of the model, e.g. ``convnext_tiny``; a tag after a dot changes nothing.
        out_features: names of the features, ``res{i}`` for stride ``2 ** i``. Of several features
            with the same stride it is the last.
        freeze_at: 0 freezes nothing, 1 the stem, ``i`` the stem and the stages up to ``res{i}``.
        frozen_norm: batch norms keep their statistics and weights, as in every published detector.
        layer_norm: each feature has its own LayerNorm, as Swin has in the published detectors.
        divisor: images are padded with zeros at the right and the bottom to a multiple of it, and
            features cropped to what the image covers, ceil(size / stride). None: the coarsest
            stride of the network; 1 is right for a network that takes any size, such as a ResNet.
        checkpoint_activations: compute activations again in the backward pass to save memory.
        options: further arguments of the network, e.g. ``{"drop_path_rate": 0.2}``, except those
            that this function sets (``pretrained``, ``features_only``, ``out_indices``),
            ``in_chans``, for images are always RGB, and ``checkpoint_path``, for files are read by
            ``kddetr.checkpoint`` alone. A network made for one image size needs the option that
            lifts this limit, if there is one:
            ``{"dynamic_img_size": True}`` for a vision transformer, ``{"strict_img_size": False}``
            for a Swin of the second version.

    Raises:
        ImportError: timm is not installed.
        ValueError: timm has no such model, or cannot build it with these options; the model has no
            such feature; it has no stages that ``freeze_at`` or ``checkpoint_activations`` could
            act on; or an argument is out of range.
    """
    try:
        import timm
    except ImportError as error:
        raise ImportError(
            "This backbone is built by timm, which is not installed: pip install -e .[timm]"
        ) from error
    whole(0, freeze_at=freeze_at)
    if divisor is not None:
        whole(1, divisor=divisor)
    if not isinstance(name, str) or not timm.is_model(name):
        name = str(name)
        hint = did_you_mean(name, timm.list_models(), otherwise="see timm.list_models().", count=3)
        raise ValueError(f"timm has no model {name!r}; {hint}")

    if isinstance(options, DictConfig):  # its lists are none to torch
        options = OmegaConf.to_container(options, resolve=True)

    if fixed := _FIXED & (options or {}).keys():
        raise ValueError(f"options must not set {', '.join(sorted(fixed))}: leave it out.")

    def network(**more: Any) -> nn.Module:
        arguments = {**(options or {}), "pretrained": False, "features_only": True, **more}
        try:
            return timm.create_model(name, **arguments)
        except (AssertionError, RuntimeError, TypeError) as error:
            reason = str(error).strip().split("\n")[0]
            raise ValueError(f"timm cannot build {name} as a backbone: {reason}") from error

    with torch.device("meta"):  # its features are known only after it is built
        offered = _by_name(network().feature_info.info)
    if not offered:
        raise ValueError(f"{name} has no feature whose stride is a power of 2: take another model.")
    names(
        f"the features of {name}, where res{{i}} has the stride 2 ** i",
        offered,
        out_features=out_features,
    )
    built = network(out_indices=tuple(sorted(offered[feature] for feature in out_features)))
    if checkpoint_activations:
        _checkpoint(built)
    return TimmBackbone(built, out_features, freeze_at, frozen_norm, layer_norm, divisor)


class TimmBackbone(Backbone):
    """A ``network`` of ``timm.create_model(..., features_only=True)`` in Detectron2's form; for the
    other arguments see :func:`timm_backbone`.
    """

    def __init__(
        self,
        network: nn.Module,
        out_features: Sequence[str],
        freeze_at: int,
        frozen_norm: bool,
        layer_norm: bool,
        divisor: int | None,
    ) -> None:
        super().__init__()
        infos = network.feature_info.get_dicts()  # one for each returned feature, in order
        self._place = _by_name(infos)
        self._out_features = list(out_features)
        self._out_feature_channels = {n: infos[i]["num_chs"] for n, i in self._place.items()}
        self._out_feature_strides = {n: infos[i]["reduction"] for n, i in self._place.items()}
        self._channels_last = str(getattr(network, "output_fmt", "")).endswith("NHWC")
        self.divisor = divisor or max(info["reduction"] for info in network.feature_info.info)
        self._frozen = _modules_up_to(network, freeze_at)
        self.timm = freeze_batch_norms(network) if frozen_norm else network
        for child in self._frozen:
            self.timm[child] = freeze_batch_norms(self.timm[child]).requires_grad_(False)
        channels = self._out_feature_channels
        self.norms = nn.ModuleDict(
            {feature: nn.LayerNorm(channels[feature]) for feature in out_features if layer_norm}
        )
        self.train(self.training)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """(B, 3, H, W) of any size to features (B, C_i, ceil(H / s_i), ceil(W / s_i)) by name."""
        height, width = x.shape[-2:]
        right, below = -width % self.divisor, -height % self.divisor
        maps = self.timm(F.pad(x, (0, right, 0, below)) if right or below else x)
        features = {}
        for name in self._out_features:
            feature = maps[self._place[name]]
            if not self._channels_last:
                feature = feature.permute(0, 2, 3, 1)
            stride = self._out_feature_strides[name]
            if right or below:
                feature = feature[:, : -(-height // stride), : -(-width // stride)]
            if name in self.norms:
                feature = self.norms[name](feature)
            features[name] = feature.permute(0, 3, 1, 2).contiguous()
        return features

    def train(self, mode: bool = True) -> "TimmBackbone":
        """Set the mode, except for frozen parts: they stay in evaluation mode and drop no paths."""
        super().train(mode)
        for child in self._frozen:
            self.timm[child].eval()
        return self


def freeze_batch_norms(module: nn.Module) -> nn.Module:
    """Replace batch norms by frozen ones with the same names; returns the module.

    timm's batch norms with an activation become timm's frozen ones. The others become Detectron2's,
    which keep half precision.
    """
    from timm.layers import BatchNormAct2d, freeze_batch_norm_2d

    if isinstance(module, BatchNormAct2d):
        return freeze_batch_norm_2d(module)
    if isinstance(module, nn.BatchNorm2d | nn.SyncBatchNorm):
        return FrozenBatchNorm2d.convert_frozen_batchnorm(module)
    for name, child in module.named_children():
        if (frozen := freeze_batch_norms(child)) is not child:
            setattr(module, name, frozen)
    return module


def _by_name(infos: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Index in a list of timm's feature descriptions by name, for strides that are powers of 2."""
    strides = [info["reduction"] for info in infos]
    return {
        f"res{s.bit_length() - 1}": i for i, s in enumerate(strides) if s.bit_count() == 1 and s > 1
    }


def _modules_up_to(network: nn.Module, freeze_at: int) -> list[str]:
    """Children of the network that make up the stem and the stages up to ``res{freeze_at}``."""
    if freeze_at == 0:
        return []
    children = [name for name, _ in network.named_children()]
    ends = {}  # level of a feature -> the child that returns it
    for info in network.feature_info.info:
        module = info["module"]
        child = module if module in children else module.replace(".", "_", 1)
        if child in children:
            ends[info["reduction"].bit_length() - 1] = child
    returned = {info["reduction"].bit_length() - 1 for info in network.feature_info.get_dicts()}
    if not isinstance(network, nn.ModuleDict) or returned - ends.keys():
        raise ValueError(
            f"timm gives this network ({type(network).__name__}) in one piece, so its first stages "
            "cannot be frozen; set freeze_at=0."
        )
    before = [level for level in ends if level <= freeze_at]
    if before:
        return children[: children.index(ends[max(before)]) + 1]
    return children[: children.index(ends[min(ends)])]  # the stem returns no feature


def _checkpoint(network: nn.Module) -> None:
    """Switch activation checkpointing on, in the stages if they support it, else in the whole."""
    able = [part for part in network.modules() if hasattr(part, "grad_checkpointing")]
    if not able:
        raise ValueError(
            f"timm's {type(network).__name__} has no activation checkpointing;"
            " set checkpoint_activations=False."
        )
    for part in [part for part in able if part is not network] or able:
        part.grad_checkpointing = True
