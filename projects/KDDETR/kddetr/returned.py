"""Checks of what a part of one's own returns: a sampler, a query placement, a loss, a detector.

Each error names the class, the entry and what it is, so that the code to mend is found.
"""

import inspect
import weakref
from collections.abc import Mapping
from numbers import Real

import torch
from torch import Tensor

from .errors import UsageError
from .structures import Queries

_known: "weakref.WeakSet[object]" = weakref.WeakSet()  # parts whose first boxes were checked
LARGEST = 1.5  # of a value of a box in [0, 1] that was moved out of the image on purpose


def part_name(part: object) -> str:
    """The name of the class, or of the function, that a message speaks of."""
    return getattr(part, "__name__", type(part).__name__)


def described(value: object) -> str:
    """A value in words for a message: ``a Tensor of shape (2, 300)``."""
    shape = getattr(value, "shape", None)
    if value is None or isinstance(value, Real | str):
        return repr(value)
    kind = type(value).__name__
    article = "an" if kind[0] in "AEIOUaeio" or kind == "ndarray" else "a"
    return f"{article} {kind}" + ("" if shape is None else f" of shape {tuple(shape)}")


def takes(part: object, count: int) -> bool:
    """Whether a part can be called with ``count`` arguments, as far as that shows."""
    if not callable(part):
        return False
    try:
        inspect.signature(part).bind(*range(count))
    except TypeError:
        return False
    except ValueError:  # some builtins have no signature
        pass
    return True


def scalar_losses(returned: object, owner: object, device: torch.device) -> dict[str, Tensor]:
    """The losses that a part returned, on ``device``.

    Args:
        returned: a dictionary of weighted losses by name: scalar tensors, or numbers.
        owner: the loss or the detector that returned it, for the messages.
        device: of the student; a constant is often made on the CPU.

    Raises:
        UsageError: it is no dictionary, a name is no text, or a loss is not a scalar.
    """
    if not isinstance(returned, Mapping):
        raise UsageError(
            f"{part_name(owner)} returned {described(returned)} instead of its losses: return a"
            ' dictionary of weighted scalar losses by name, such as {"kd/boxes": loss}.'
        )
    return {_name(key, owner): _scalar(returned[key], key, owner, device) for key in returned}


def without_gradient(losses: Mapping[str, Tensor]) -> list[str]:
    """The names of the losses that cannot train anything, because they are constants.

    A constant 0 is not among them: it is what a loss of no points is, and it adds nothing. Under
    ``torch.no_grad()`` no loss has a gradient, and none is among them.
    """
    if not torch.is_grad_enabled():
        return []
    return [name for name, x in losses.items() if not x.requires_grad and x.item() != 0]


def named_points(returned: object, owner: object, images: int | None = None) -> Queries:
    """The distillation points that a sampler returned.

    Args:
        returned: queries of all ``images``, in named groups.
        owner: the sampler, for the messages.
        images: B, where it is known.

    Raises:
        UsageError: they are no queries, without a group, of another number of images, or at boxes
            that are not in [0, 1].
    """
    name = part_name(owner)
    if not isinstance(returned, Queries):
        raise UsageError(
            f"{name} returned {described(returned)} instead of Queries: make the points with"
            ' teacher.make_queries(boxes).named("mine").'
        )
    if not returned.groups:
        raise UsageError(
            f"The sampler {name} returned points without a named group, which a loss would pass"
            " over: name them with Queries.named()."
        )
    if images is not None and len(returned.boxes) != images:
        raise UsageError(
            f"{name} returned points for {len(returned.boxes)} images, and there are {images}: give"
            " teacher.make_queries boxes of the shape (images, points, 4), or (1, points, 4)."
        )
    _check_boxes(returned.boxes, owner)
    return returned


def placed_queries(returned: object, owner: object, points: Queries) -> Queries:
    """The queries that a query placement returned for these ``points``.

    Raises:
        UsageError: they are no queries, not as many in the same groups, or at boxes that are not in
            [0, 1].
    """
    if not isinstance(returned, Queries):
        raise UsageError(
            f"{part_name(owner)} returned {described(returned)} instead of Queries: return"
            " dataclasses.replace(points, boxes=boxes, content=None, position=None)."
        )
    if returned.groups != points.groups or len(returned.boxes) != len(points.boxes):
        raise UsageError(
            f"{part_name(owner)} returned {len(returned)} queries in the groups"
            f" {dict(returned.groups)} for {len(returned.boxes)} images, but the points are"
            f" {len(points)} in the groups {dict(points.groups)} for {len(points.boxes)} images:"
            " return one query for each point, in the same order and groups."
        )
    _check_boxes(returned.boxes, owner)
    return returned


def _check_boxes(boxes: Tensor, owner: object) -> None:
    """Refuse boxes that are not finite, or that are pixels, as most of their values say.

    On a GPU, where reading them makes the host wait, only the first ones of each part: what is
    pixels is pixels at every step, and later values that are not finite stop the training too.
    """
    if _is_known(owner) and boxes.device.type != "cpu":
        return
    name = part_name(owner)
    if not boxes.isfinite().all():
        raise UsageError(
            f"{name} returned boxes with values that are infinite or no numbers: correct what it"
            " computes them from."
        )
    if boxes.numel() and (boxes > LARGEST).float().mean() > 0.5:
        raise UsageError(
            f"{name} returned boxes with values up to {float(boxes.max()):.4g}, which look like"
            " pixels: boxes are (centre x, centre y, width, height) in [0, 1] of the image."
        )


def _is_known(owner: object) -> bool:
    """Whether boxes of this part have been checked before; always False where that cannot be
    remembered.
    """
    try:
        known = owner in _known
        _known.add(owner)
    except TypeError:
        return False
    return known


def _name(key: object, owner: object) -> str:
    if not isinstance(key, str):
        raise UsageError(
            f"{part_name(owner)} returned a loss under the name {key!r}: names must be text, such"
            ' as "kd/boxes".'
        )
    return key


def _scalar(value: object, name: object, owner: object, device: torch.device) -> Tensor:
    if isinstance(value, Real) and not isinstance(value, bool):
        value = torch.tensor(float(value))
    if not isinstance(value, Tensor) or value.dim() or value.is_complex():
        raise UsageError(
            f"{part_name(owner)} returned {described(value)} as the loss {name!r}, which must be a"
            " scalar tensor: reduce it with .sum() or .mean(), and leave out what is no loss."
        )
    return value.to(device)
