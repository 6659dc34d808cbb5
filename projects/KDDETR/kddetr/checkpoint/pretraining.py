"""Pixels that weights were trained on, compared with those that the model passes to them.

ImageNet files come in two kinds. Caffe's (MSRA's, Detectron's) were trained on BGR pixels from 0 to
255 minus their mean, torchvision's on RGB pixels that are divided by their standard deviation, too.
Each fits a model made for the other in every name and shape, and computes useless features there.
"""

import logging
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..errors import CheckpointError
from .backbones import in_resnet
from .caffe2_names import is_caffe2, is_folded
from .files import State

_log = logging.getLogger(__name__)
_CAFFE = "detectron2://ImageNetPretrained/MSRA/R-50.pkl"
_SETTINGS = {
    order: f"input_format={order}, pixel_mean={mean} and pixel_std={std}"
    for order, mean, std in (
        ("BGR", "[103.53,116.28,123.675]", "[1,1,1]"),
        ("RGB", "[123.675,116.28,103.53]", "[58.395,57.12,57.375]"),
    )
}


class Pixels(NamedTuple):
    """Order of the channels ("RGB" or "BGR"), and whether they are divided by their deviation.

    None where that is not known.
    """

    order: str | None
    divided: bool | None

    def __str__(self) -> str:
        scale = {True: " divided by their deviation", False: " that are not divided", None: ""}
        return f"{self.order or ''} pixels{scale[self.divided]}".strip()


def check_pretraining(state: State, model: nn.Module, source: str) -> None:
    """Refuse an ImageNet file, or a Caffe2 detector, that was trained on other pixels.

    It is a warning where the names do not show for sure who made the file, or where only the stride
    of the bottlenecks lies elsewhere. What a model feeds its backbone is known from ``pixel_mean``,
    ``pixel_std`` and ``input_format``; a model without them is not checked.

    Raises:
        CheckpointError: other pixels, or batch norms without the statistics that the model's need.
    """
    sure = True
    if is_caffe2(state):
        file, early = _caffe2(state)
        _check_statistics(state, model, source)
    elif {"conv1.weight", "layer1.0.conv1.weight"} <= state.keys():
        # Others use torchvision's names too, most often without the classifier.
        file, early, sure = Pixels("RGB", True), False, "fc.weight" in state
    elif {"stem.conv1.weight", "stem.fc.weight"} <= state.keys():
        file, early = Pixels("RGB", True), False
    else:
        return
    wanted = _wanted(model)
    if any(a != b for a, b in zip(file, wanted, strict=True) if a is not None and b is not None):
        other = "torchvision's weights" if file.order == "BGR" else _CAFFE
        own = isinstance(getattr(model, "input_format", None), str)
        advice = f"set its {_SETTINGS[file.order]}, or take {other}" if own else f"take {other}"
        message = f"{source} was trained on {file} and the model takes {wanted}; {advice}"
        if sure:
            raise CheckpointError(f"{message}.")
        _log.warning("%s. This holds if the file is torchvision's, as its names suggest.", message)
    if None not in (early, found := _early_stride(model)) and early != found:
        _log.warning(
            "%s has the stride of its bottlenecks in the %s convolution and the model in the %s: it"
            " is loaded, but features shift; set the backbone's stride_in_1x1=%s.",
            *(source, *(("1x1", "3x3") if early else ("3x3", "1x1")), early),
        )


def check_pixels(state: State, model: nn.Module, source: str, *, strict: bool) -> None:
    """Refuse, or without ``strict`` warn of, a detector's file with another mean or deviation.

    Older files of Detectron2's model zoo hold ``pixel_mean`` and ``pixel_std``.
    """
    different = []
    for name in ("pixel_mean", "pixel_std"):
        theirs, ours = _three(state.get(name)), _three(getattr(model, name, None))
        if theirs and ours and any(abs(a - b) > 0.5 for a, b in zip(theirs, ours, strict=True)):
            different.append(f"{name}={_rounded(theirs)} and the model {_rounded(ours)}")
    if not different:
        return
    message = f"{source} was trained with {', '.join(different)}"
    if strict:
        raise CheckpointError(f"{message}; set the file's values in the model's config.")
    _log.warning("%s: its features will be wrong until they are trained again.", message)


def _caffe2(state: State) -> tuple[Pixels, bool]:
    """(the pixels of such a network, whether its stride is in the 1x1 convolution).

    ResNeXts are Caffe2's own and came with divided pixels as well as without; networks with group
    norm have the stride in the 3x3 convolution.
    """
    first, second = (state.get(f"res2_0_branch2{letter}_w") for letter in "ab")
    convolutions = second is not None and first.ndim == second.ndim == 4
    grouped = convolutions and len(first) != second.shape[1]
    pixels = Pixels("BGR", None if grouped else False)
    return pixels, not grouped and "res2_0_branch2a_gn_s" not in state


def _wanted(model: nn.Module) -> Pixels:
    """The pixels that a detector feeds its backbone."""
    mean, std = (_three(getattr(model, name, None)) for name in ("pixel_mean", "pixel_std"))
    order = getattr(model, "input_format", None)
    if mean and order not in ("RGB", "BGR"):
        # ImageNet is reddish: its mean red is the largest, its mean blue the smallest.
        order = "BGR" if mean[0] < mean[2] else "RGB" if mean[0] > mean[2] else None
    divided = False if std and set(std) == {1.0} else True if std and min(std) > 2 else None
    return Pixels(order if mean else None, divided)


def _three(values: object) -> list[float]:
    """The numbers of the three channels, empty where there are none."""
    if not isinstance(values, torch.Tensor) or values.is_meta or values.numel() != 3:
        return []
    return values.flatten().tolist()


def _rounded(values: list[float]) -> str:
    return f"[{','.join(f'{value:.5g}' for value in values)}]"


def _early_stride(model: nn.Module) -> bool | None:
    """Whether bottlenecks have their stride in the first convolution; None: there are none."""
    for name, module in model.named_modules():
        if in_resnet(f"{name}.") and name.endswith("res3.0") and hasattr(module, "conv3"):
            return module.conv1.stride == (2, 2)
    return None


def _check_statistics(state: State, model: nn.Module, source: str) -> None:
    """Refuse scale and shift alone for batch norms that compute statistics of their own."""
    norms = (module for name, module in model.named_modules() if in_resnet(name))
    if is_folded(state) and any(isinstance(module, _BatchNorm) for module in norms):
        raise CheckpointError(
            f"{source} has its batch norms as scale and shift, without the statistics that the"
            f" model's need; set the norm of its backbone to FrozenBN, or take {_CAFFE} or its"
            " like, which has them."
        )
