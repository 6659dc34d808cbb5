"""What a file's backbone was trained on, and whether the model feeds it the same.

ImageNet files come in two traditions. Caffe's (MSRA's, Detectron's) see blue first and pixels as
they are, torchvision's red first and pixels divided by their deviation. Each fits into a model made
for the other to the last name, and sees nothing but noise there.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..errors import CheckpointError
from .backbones import in_resnet
from .caffe2_names import is_caffe2, is_folded

__all__ = ["check_pixels", "check_pretraining"]

_log = logging.getLogger(__name__)
_CAFFE = "detectron2://ImageNetPretrained/MSRA/R-50.pkl"
_SETTINGS = {
    "BGR": "input_format=BGR, pixel_mean=[103.53,116.28,123.675] and pixel_std=[1,1,1]",
    "RGB": "input_format=RGB, pixel_mean=[123.675,116.28,103.53] and"
    " pixel_std=[58.395,57.12,57.375]",
}

State = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Pixels:
    """How an image's channels come.

    Attributes:
        order: "RGB" or "BGR"; None: not known.
        divided: by their standard deviation, or left at 0 to 255; None: not known.
    """

    order: str | None
    divided: bool | None

    def contradicts(self, other: "Pixels") -> bool:
        """Whether the two differ in something that both know."""
        pairs = ((self.order, other.order), (self.divided, other.divided))
        return any(a is not None and b is not None and a != b for a, b in pairs)

    def __str__(self) -> str:
        scale = {True: " divided by their deviation", False: " that are not divided", None: ""}
        return f"{self.order or ''} pixels{scale[self.divided]}".strip()


def check_pretraining(state: State, model: nn.Module, source: str) -> None:
    """Refuse an ImageNet file, or a Caffe2 detector, that was trained on other pixels.

    Where the names alone do not say whose file it is, or what differs is where the stride of a
    bottleneck lies, it is a warning.

    Args:
        state: weights by the names in the file.
        model: its `pixel_mean`, `pixel_std` and `input_format` say what it feeds its backbone; one
            without is not looked at.
        source: the file's name, for messages.

    Raises:
        CheckpointError: other pixels, or batch norms without the statistics that the model's need.
    """
    if is_caffe2(state):
        file, early, sure = _caffe2(state)
        _check_statistics(state, model, source)
    elif classifier := _torchvision_classifier(state):
        file, early, sure = Pixels("RGB", divided=True), False, classifier in state
    else:
        return
    wanted = _wanted(model)
    if file.contradicts(wanted):
        other = "torchvision's weights" if file.order == "BGR" else _CAFFE
        own = isinstance(getattr(model, "input_format", None), str)
        advice = f"set its {_SETTINGS[file.order]}, or take {other}" if own else f"take {other}"
        message = f"{source} was trained on {file} and the model takes {wanted}; {advice}"
        if sure:
            raise CheckpointError(f"{message}.")
        _log.warning("%s, if the file is torchvision's as its names are.", message)
    if None not in (early, found := _early_stride(model)) and early != found:
        _log.warning(
            "%s has the stride of its bottlenecks in the %s convolution and the model in the %s: it"
            " is loaded, but features shift; set the backbone's stride_in_1x1=%s.",
            source,
            *(("1x1", "3x3") if early else ("3x3", "1x1")),
            early,
        )


def check_pixels(state: State, model: nn.Module, source: str, *, strict: bool) -> None:
    """Refuse, or without `strict` warn of, a detector's file that says it had other pixels.

    Older files of Detectron2's model zoo hold `pixel_mean` and `pixel_std`.
    """
    different = []
    for name in ("pixel_mean", "pixel_std"):
        theirs, ours = _three(state.get(name)), _three(getattr(model, name, None))
        if theirs and ours and any(abs(a - b) > 0.5 for a, b in zip(theirs, ours)):
            different.append(f"{name}={_rounded(theirs)} and the model {_rounded(ours)}")
    if not different:
        return
    message = f"{source} was trained with {', '.join(different)}"
    if strict:
        raise CheckpointError(f"{message}; set the model's to the file's.")
    _log.warning("%s: what it has learned it will not find again.", message)


def _caffe2(state: State) -> tuple[Pixels, bool, bool]:
    """(what such a network saw, whether its stride is in the 1x1 convolution, whether it is sure).

    ResNeXts are Caffe2's own and came with divided pixels as well as without; those with group norm
    are younger than MSRA's, too.
    """
    first, second = (state.get(f"res2_0_branch2{letter}_w") for letter in "ab")
    convolutions = second is not None and first.ndim == second.ndim == 4
    grouped = convolutions and len(first) != second.shape[1]
    pixels = Pixels("BGR", divided=None if grouped else False)
    return pixels, not grouped and "res2_0_branch2a_gn_s" not in state, True


def _torchvision_classifier(state: State) -> str:
    """What torchvision's classifier is called in a file with its names, or Detectron2's for them.

    Empty: it is no such file. Detectron2 calls the weights of others the same, without `stem.fc`.
    """
    if "conv1.weight" in state and "layer1.0.conv1.weight" in state:
        return "fc.weight"
    return "stem.fc.weight" if {"stem.conv1.weight", "stem.fc.weight"} <= state.keys() else ""


def _wanted(model: nn.Module) -> Pixels:
    """What a detector feeds its backbone."""
    mean, std = (_three(getattr(model, name, None)) for name in ("pixel_mean", "pixel_std"))
    order = getattr(model, "input_format", None)
    if mean and order not in ("RGB", "BGR"):
        # ImageNet is reddish: its mean red is the largest, its mean blue the smallest.
        order = "BGR" if mean[0] < mean[2] else "RGB" if mean[0] > mean[2] else None
    divided = None
    if std:
        divided = False if set(std) == {1.0} else True if min(std) > 2 else None
    return Pixels(order if mean else None, divided)


def _three(values: object) -> list[float]:
    """The channels' numbers, empty where they are not there or not to be had."""
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
    """Refuse scale and shift for batch norms that would compute statistics of their own."""
    norms = (module for name, module in model.named_modules() if in_resnet(name))
    if is_folded(state) and any(isinstance(module, _BatchNorm) for module in norms):
        raise CheckpointError(
            f"{source} has its batch norms as scale and shift, without the statistics that the"
            f" model's need; set the norm of its backbone to FrozenBN, or take {_CAFFE} or its"
            " like, which has them."
        )
