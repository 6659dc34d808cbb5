"""The door of every detector: a batch is what Detectron2 has, or one sentence says what is wrong.

A batch is a list of dictionaries: ``image``, a (3, H, W) RGB tensor with values from 0 to 255, and,
where they are known, ``instances`` and the ``height`` and ``width`` that detections are given for.
"""

from collections.abc import Sequence
from numbers import Real
from typing import Any

import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor

from ..errors import UsageError
from ..returned import described

WANTED = 'a list of dictionaries such as [{"image": image}], one for each image'
MOST_SCALED = 4.0  # values of an image with mean 0 and standard deviation 1 are below it


def check_precision(weights: Tensor) -> None:
    """Raise a UsageError where a detector has been cast to another type than PyTorch's default."""
    if weights.dtype != torch.get_default_dtype():
        kind = str(weights.dtype).removeprefix("torch.")
        raise UsageError(
            f"The weights of this detector are {kind}, but it computes boxes in float32: call"
            " .float(), and for half precision run it inside of torch.autocast."
        )


def check_inputs(inputs: list[dict[str, Any]]) -> None:
    """Raise a UsageError where a batch is not what a detector takes; see the top of this file."""
    if not isinstance(inputs, list | tuple) or not inputs:
        given = "an empty list" if isinstance(inputs, list | tuple) else described(inputs)
        raise UsageError(f"A detector takes {WANTED}, not {given}.")
    for x in inputs:
        if not isinstance(x, dict) or "image" not in x:
            keys = f" with the keys {', '.join(map(str, x))}" if isinstance(x, dict) else ""
            raise UsageError(f"A detector takes {WANTED}, not a list with {described(x)}{keys}.")
        _check_image(x["image"])
        for side in ("height", "width"):
            if side in x and not (isinstance(x[side], Real | Tensor) and x[side] > 0):
                raise UsageError(
                    f"The {side} of an image is {described(x[side])}: give the number of pixels"
                    " that its detections are wanted for, or leave the key out."
                )
    _check_range([x["image"] for x in inputs])


def check_truth(x: dict[str, Any], num_classes: int) -> None:
    """Raise a UsageError where the ``instances`` of an image cannot be learned: they are not of its
    size, have no boxes or classes, or a class that is negative or not below ``num_classes``.
    """
    instances, size = x["instances"], tuple(x["image"].shape[-2:])
    whole = isinstance(instances, Instances) and instances.has("gt_boxes")
    if not whole or not instances.has("gt_classes") or not isinstance(instances.gt_boxes, Boxes):
        raise UsageError(
            "The instances of a labelled image must be Instances of Detectron2 with gt_boxes, Boxes"
            f" in pixels, and gt_classes, not {described(instances)}: leave the key out of"
            " an image without labels."
        )
    if tuple(instances.image_size) != size:
        raise UsageError(
            f"The instances of an image are of the size {tuple(instances.image_size)} and the image"
            f" is {size}, (height, width): scale the boxes with the image, as Detectron2's mappers"
            " do."
        )
    classes = instances.gt_classes
    if not isinstance(classes, Tensor) or classes.is_floating_point() or classes.dim() != 1:
        raise UsageError(
            f"gt_classes must be a tensor of whole numbers, one for each box, not"
            f" {described(classes)}."
        )
    wrong = classes[(classes < 0) | (classes >= num_classes)]
    if len(wrong):
        raise UsageError(
            f"An image has a box of class {int(wrong[0])}, but this detector has {num_classes}"
            " classes, counted from 0: count the classes of the data from 0, and set num_classes to"
            " their number."
        )


def _check_image(image: object) -> None:
    if not isinstance(image, Tensor):
        raise UsageError(
            f"An image must be a (3, H, W) RGB tensor, not {described(image)}: of a (H, W, 3) array"
            " take torch.as_tensor(array).permute(2, 0, 1), of an array in BGR as OpenCV reads it"
            " torch.as_tensor(array[:, :, ::-1].copy()).permute(2, 0, 1)."
        )
    if image.dim() != 3 or len(image) != 3 or not image.numel():
        raise UsageError(
            f"An image must be a (3, H, W) RGB tensor, not {tuple(image.shape)}: {_advice(image)}"
        )
    if image.dtype != torch.uint8 and not image.is_floating_point():
        raise UsageError(
            f"An image must be uint8 or floating-point, from 0 to 255, not {image.dtype}: scale its"
            " values to 0 to 255 and convert it with image.to(torch.uint8)."
        )


def _advice(image: Tensor) -> str:
    """What to do with a tensor of another shape."""
    shape = tuple(image.shape)
    if not image.numel():
        return "it has no pixels."
    if len(shape) == 4:
        return f"give {WANTED}."
    if len(shape) == 2 or (len(shape) == 3 and shape[0] == 1):
        return "of a grey image take image.expand(3, -1, -1)."
    if len(shape) == 3 and shape[-1] == 3:
        return "take image.permute(2, 0, 1)."
    if len(shape) == 3 and shape[0] == 4:
        return "take image[:3], without the alpha channel."
    return "read any image file with kddetr.data.read_image, and permute(2, 0, 1) its array."


def _check_range(images: Sequence[Tensor]) -> None:
    """Refuse a batch whose values are scaled already; such images would be black to a detector."""
    floats = [image.detach() for image in images if image.is_floating_point()]
    if not all(image.isfinite().all() for image in floats):
        raise UsageError("An image has pixels that are infinite or no numbers: give it 0 to 255.")
    if len(floats) < len(images):
        return
    low = min(float(image.amin()) for image in floats)
    high = max(float(image.amax()) for image in floats)
    if 0 < high <= (1.0 if low >= 0 else MOST_SCALED):
        raise UsageError(
            f"The values of these images are between {low:.3g} and {high:.3g}, and a detector takes"
            " 0 to 255: give it the raw pixels, because it normalises them itself."
        )
