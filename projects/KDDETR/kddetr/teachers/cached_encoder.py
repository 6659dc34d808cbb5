"""A frozen detector that encodes every image once and remembers it.

On a small data set without augmentation this is the biggest saving there is: backbone and encoder
of a detector that does not change run once per image instead of once per epoch.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..detectors.detr.memory import Memory
from ..detectors.detr.transformer import DetectionTransformer
from ..errors import UsageError
from .wrapper import TeacherWrapper


@dataclass(frozen=True)
class Remembered:
    """One image: its tokens (S, C) and a checksum of the pixels they were computed from."""

    tokens: Tensor
    checksum: int


class CachedEncoder(TeacherWrapper):
    """Answers like ``detector``, up to the rounding of what is stored.

    Args:
        detector: frozen; it must not be trained.
        dtype: name of the torch dtype the tokens are kept in, on the CPU. float16 halves the memory
            (S * C * 2 bytes an image) and rounds tokens to about three digits.
    """

    def __init__(self, detector: DetectionTransformer, *, dtype: str = "float16") -> None:
        super().__init__(detector)
        self.dtype = getattr(torch, dtype)
        self._images: dict[Any, Remembered] = {}
        self._layouts: dict[tuple[int, int], Memory] = {}

    @torch.no_grad()
    def encode(self, inputs: list[dict[str, Any]]) -> Memory:
        """Memory of images of one size, each identified by its ``image_id``.

        Raises:
            UsageError: the images differ in size, carry no ``image_id``, or one of them is not the
                image that was remembered under its id: augmentation is on.
        """
        keys = [_key(x) for x in inputs]
        sizes = {tuple(x["image"].shape[-2:]) for x in inputs}
        if len(sizes) != 1:
            raise UsageError(
                f"Remembered encodings need images of one size, and this batch has {sorted(sizes)}:"
                " resize all to the same, or do not cache the encoder."
            )
        (size,) = sizes
        for key, x in zip(keys, inputs, strict=True):
            # One by one: the last bits of an encoding depend on the size of the batch, and a
            # resumed run, which meets the images in other batches, must find the same numbers.
            if key not in self._images or size not in self._layouts:
                self._remember(x, size)
        for key, x in zip(keys, inputs, strict=True):
            if self._images[key].checksum != _checksum(x["image"]):
                raise UsageError(
                    f"Image {key!r} is not the one that was remembered: an encoding can be reused"
                    " only without augmentation; switch one of the two off."
                )
        layout = self._layouts[size]
        # Cast before they are stacked: autocast on a CPU knows no float16.
        tokens = torch.stack([self._images[key].tokens.to(layout.position) for key in keys])
        return replace(layout.select([0] * len(inputs)), tokens=tokens, _cache={})

    def _apply(self, fn, *args, **kwargs):
        """Moving the detector forgets where layouts lay."""
        self._layouts.clear()
        return super()._apply(fn, *args, **kwargs)

    def _remember(self, x: dict[str, Any], size: tuple[int, int]) -> None:
        memory = self.detector.encode([x])
        if not isinstance(memory, Memory):
            raise UsageError(
                "Only a detection transformer's encoding can be remembered: do not cache the"
                " encoder of this detector."
            )
        self._layouts[size] = memory
        tokens = memory.tokens[0].to("cpu", self.dtype).clone()
        self._images[_key(x)] = Remembered(tokens, _checksum(x["image"]))


def _key(x: dict[str, Any]) -> Any:
    if "image_id" not in x:
        raise UsageError("Remembered encodings need an image_id in every input.")
    # Ids are unique within one annotation file only; the path tells two files' images apart.
    return x.get("file_name"), x["image_id"]


def _checksum(image: Tensor) -> int:
    """Cheap and order-aware: columns are weighted, so that a mirrored image differs."""
    weights = torch.arange(1, image.shape[-1] + 1, dtype=torch.int64)
    return int((image.sum((0, 1), dtype=torch.int64).cpu() * weights).sum())
