"""A wrapper that keeps the encoder's output of every image of a frozen detector.

A frozen detector encodes the same image to the same tokens in every epoch. On a small data set
without augmentation, backbone and encoder of a teacher therefore need to run only once per image.

Shape letters: B images, S tokens, C embedding width.
"""

import zlib
from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..detectors.detr.memory import Memory
from ..detectors.inputs import check_inputs
from ..errors import UsageError
from ..ranges import one_of
from ..structures import QueryableDetector
from ..transfer import to_device
from .wrapper import TeacherWrapper


@dataclass(frozen=True)
class CachedImage:
    """The encoder's output for one image."""

    tokens: Tensor  # (S, C), on the CPU
    checksum: int  # of the pixels that the tokens were computed from


class CachedEncoder(TeacherWrapper):
    """A frozen detection transformer that encodes each image only once.

    Images are encoded one by one. The last bits of an encoding depend on the size of the batch, and
    a resumed run meets the images in other batches than the uninterrupted run did.

    Args:
        detector: a detection transformer, or a wrapper around one. It must not be trained.
        dtype: name of the torch dtype in which the tokens are kept: float16, bfloat16, float32 or
            float64. float16 halves the memory (S * C * 2 bytes an image) and rounds tokens to about
            three digits.

    Raises:
        ValueError: another dtype.
    """

    def __init__(self, detector: QueryableDetector, *, dtype: str = "float16") -> None:
        super().__init__(detector)
        one_of(("float16", "bfloat16", "float32", "float64"), dtype=dtype)
        self.dtype = getattr(torch, dtype)
        self._images: dict[Hashable, CachedImage] = {}
        # The memory of one image of each size, which gives everything but the tokens: position
        # embedding, padding and level shapes are the same for all images of a size.
        self._memories: dict[tuple[int, int], Memory] = {}

    @torch.no_grad()
    def encode(self, inputs: list[dict[str, Any]]) -> Memory:
        """The memory of B images of one size, from the cache where they are known.

        An image is identified by its ``image_id`` and, where there is one, its ``file_name``.

        Raises:
            UsageError: the images differ in size, an input has no ``image_id``, the pixels of an
                image have changed since it was encoded, or the detector is not a transformer.
        """
        check_inputs(inputs)
        sizes = {tuple(x["image"].shape[-2:]) for x in inputs}
        if len(sizes) != 1:
            raise UsageError(
                f"CachedEncoder needs images of one size, and this batch has {sorted(sizes)}:"
                " resize all images to one size, or remove CachedEncoder from model.teacher."
            )
        (size,) = sizes
        keys = [_key(x) for x in inputs]
        for key, x in zip(keys, inputs, strict=True):
            self._check_unchanged(key, x)
            if key not in self._images or size not in self._memories:
                self._encode_one(key, x)
        memory = self._memories[size]
        # Converted before they are stacked, because autocast on a CPU does not support float16.
        like = memory.position
        kept = [to_device(self._images[key].tokens, like.device).to(like.dtype) for key in keys]
        tokens = torch.stack(kept)
        return replace(memory.select([0] * len(inputs)), tokens=tokens, _cache={})

    def _check_unchanged(self, key: Hashable, x: dict[str, Any]) -> None:
        known = self._images.get(key)
        if known is not None and known.checksum != _checksum(x["image"]):
            raise UsageError(
                f"Image {key!r} has other pixels than when it was encoded, so its cached encoding"
                " cannot be used: remove the random augmentations, or remove CachedEncoder from"
                " model.teacher."
            )

    def _encode_one(self, key: Hashable, x: dict[str, Any]) -> None:
        memory = self.detector.encode([x])
        if not isinstance(memory, Memory):
            raise UsageError(
                "CachedEncoder can keep the encoder output of a detection transformer only: remove"
                " CachedEncoder from around this detector."
            )
        self._memories[tuple(x["image"].shape[-2:])] = memory
        tokens = memory.tokens[0].to("cpu", self.dtype).clone()
        self._images[key] = CachedImage(tokens, _checksum(x["image"]))

    def _apply(self, fn, *args, **kwargs):
        """Move or cast the detector; memories on the former device or dtype are dropped."""
        self._memories.clear()
        return super()._apply(fn, *args, **kwargs)


def _key(x: dict[str, Any]) -> Hashable:
    if "image_id" not in x:
        raise UsageError(
            "CachedEncoder needs an image_id in every input, to tell the images apart: add it to"
            " the dataset dicts."
        )
    # Ids are unique within one annotation file only; the path tells two files' images apart.
    return x.get("file_name"), x["image_id"]


def _checksum(image: Tensor) -> int:
    """A checksum that depends on every pixel and its place."""
    return zlib.crc32(image.cpu().contiguous().numpy())
