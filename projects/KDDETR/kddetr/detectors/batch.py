"""What all detectors share: selecting the images of a batch, and skipping unlabelled images."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor

from ..errors import UsageError
from ..returned import described
from ..transfer import to_device

AnyMemory = TypeVar("AnyMemory", bound="BatchMemory")
Value = TypeVar("Value")
Losses = dict[str, Tensor]

MADE_OF_BOXES = (
    "The queries of this detector are made of boxes: draw the boxes and use make_queries."
)


class BatchMemory:
    """Base of the memories: what a detector computed once for each image of a batch.

    A subclass implements ``__len__``, the number of images, and ``_select``, the memory of a list
    of images.
    """

    def select(self: AnyMemory, images: Sequence[int]) -> AnyMemory:
        """The memory of the images with these indices; all images in order: the same memory."""
        images = list(images)
        return self if images == list(range(len(self))) else self._select(images)


@dataclass(frozen=True)
class CachingMemory(BatchMemory):
    """A memory that keeps what was computed from it once; a selection of images starts anew."""

    _cache: dict[Hashable, Any] = field(
        default_factory=dict, repr=False, compare=False, kw_only=True
    )

    def cached(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """``make()`` at the first call with this key, and the same value at every later call.

        Decoder layers keep their projection of the memory here, and a proposal head its proposals,
        so that further queries about the same images do not compute them again. Values made with
        and without gradients are kept apart.
        """
        key = (key, torch.is_grad_enabled())
        if key not in self._cache:
            self._cache[key] = make()
        return self._cache[key]

    def forget(self) -> None:
        """Drop the values of :meth:`cached`, which are made again where they are needed."""
        self._cache.clear()


def level_maps(tokens: Tensor, shapes: Sequence[tuple[int, int]]) -> list[Tensor]:
    """Tokens as the maps of their levels.

    Args:
        tokens: (B, S, C), level after level, each row by row.
        shapes: height and width of every level; S is the number of all their cells.

    Returns:
        (B, C, H, W) for every level.
    """
    cells = [height * width for height, width in shapes]
    levels = zip(tokens.split(cells, dim=1), shapes, strict=True)
    return [level.transpose(1, 2).unflatten(2, shape) for level, shape in levels]


def for_all_images(values: Tensor, images: int, device: torch.device) -> Tensor:
    """Values (B, N, D), such as boxes, or (1, N, D) that all images share, as (B, N, D).

    Raises:
        UsageError: they are no tensor, or of another number of images.
    """
    if not isinstance(values, Tensor):
        raise UsageError(
            f"make_queries takes a tensor of boxes, not {described(values)}: make one with"
            " torch.as_tensor(boxes)."
        )
    if values.dim() == 3 and values.shape[0] not in (1, images):
        raise UsageError(
            f"make_queries got boxes of the shape {tuple(values.shape)}, and there are {images}"
            " images: give it (images, points, 4), or (1, points, 4)."
        )
    return to_device(values, device).expand(images, -1, -1)


def losses_of_labelled_images(
    memory: BatchMemory,
    inputs: list[dict[str, Any]],
    losses: Callable[[Any, list[dict[str, Any]]], Losses],
) -> Losses:
    """Ground-truth losses of the labelled images of a batch, all 0 where no image has labels.

    Without labelled images the losses are computed for the first image as if it had no objects, and
    multiplied by 0: with several processes, each one must give every parameter a gradient.

    Args:
        memory: of the images in ``inputs``.
        inputs: an image without the key ``instances`` is unlabelled.
        losses: the losses by name, of a memory and inputs that are all labelled.
    """
    labelled = [i for i, x in enumerate(inputs) if "instances" in x]
    if labelled:
        return losses(memory.select(labelled), [inputs[i] for i in labelled])
    first = inputs[0] | {"instances": _no_objects(inputs[0]["image"].shape[-2:])}
    return zeroed(losses(memory.select([0]), [first]))


def zeroed(losses: Losses) -> Losses:
    """The losses multiplied by 0: they are zero and still give every parameter a gradient."""
    return {name: 0 * value for name, value in losses.items()}


def _no_objects(size: Sequence[int]) -> Instances:
    """The ground truth of an image (h, w) in which there is only background."""
    classes = torch.empty(0, dtype=torch.int64)
    return Instances(tuple(size), gt_boxes=Boxes(torch.empty(0, 4)), gt_classes=classes)
