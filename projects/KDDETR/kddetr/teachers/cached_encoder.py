"""A wrapper that keeps what a frozen detector computes about every image.

A frozen detector encodes the same image to the same tokens in every epoch, and gives the same
predictions at its own queries. On a small data set without augmentation, the backbone and encoder
of a teacher, and its decoder at specific points, therefore need to run only once per image.

Shape letters: L decoder layers, B images, N queries, S tokens, C embedding width.
"""

import zlib
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from torch import Tensor

from ..detectors.detr.memory import Memory
from ..detectors.inputs import check_inputs
from ..errors import UsageError
from ..ranges import one_of
from ..structures import Predictions, Queries, QueryableDetector
from ..transfer import to_device
from .wrapper import TeacherWrapper

PARTS = ("boxes", "content", "position")  # of queries
MOST_ANSWERS = 4  # sets that are kept of an image: samplers that draw how many points would add up


@dataclass
class CachedImage:
    """What is kept about one image, on the CPU.

    Attributes:
        tokens: (S, C).
        checksum: of the pixels that the tokens were computed from.
        own: the detector's own queries, (1, N, ...); None until they are needed.
        answers: the predictions at the first n of them in some layers, (L, 1, n, ...), by n and the
            layers.
    """

    tokens: Tensor
    checksum: int
    own: Queries | None = None
    answers: dict[tuple[int, tuple[int, ...] | None], Predictions] = field(default_factory=dict)


@dataclass(frozen=True)
class CachedMemory(Memory):
    """The memory of a batch of images that are kept.

    Attributes:
        images: what is kept of each.
    """

    images: tuple[CachedImage, ...] = ()

    def _select(self, images: list[int]) -> "CachedMemory":
        kept = tuple(self.images[i] for i in images)
        return replace(cast(CachedMemory, super()._select(images)), images=kept)


class CachedEncoder(TeacherWrapper):
    """A frozen detection transformer that encodes each image only once, and answers its own queries
    about it only once.

    Images are encoded, and own queries decoded, one image at a time. The last bits of a result
    depend on the size of the batch, and a resumed run meets the images in other batches than the
    uninterrupted run did.

    A group of queries is the detector's own where its boxes and embeddings equal the first of those
    that :meth:`queries` gives. Groups do not attend to one another, so its predictions are taken
    from the cache and only the other groups are decoded: the same numbers up to rounding.

    Args:
        detector: a detection transformer, or a wrapper around one. It must not be trained.
        dtype: name of the torch dtype in which the tokens are kept: float16, bfloat16, float32 or
            float64. float16 halves the memory (S * C * 2 bytes an image) and rounds tokens to about
            three digits. Own queries and their predictions are kept as they are.

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
        # Parts of own queries, which are the same for every image where they are learned.
        self._shared: dict[str, Tensor] = {}

    @torch.no_grad()
    def encode(self, inputs: list[dict[str, Any]]) -> CachedMemory:
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
        images = tuple(self._images[key] for key in keys)
        # In the type of the weights, because what was kept in mixed precision, in a training, is
        # asked without it in an evaluation. Converted before they are stacked, because autocast on
        # a CPU does not support float16.
        dtype, device = next(self.parameters()).dtype, memory.position.device
        kept = [to_device(image.tokens, device).to(dtype) for image in images]
        layout = vars(memory.select([0] * len(inputs)))
        own = {"tokens": torch.stack(kept), "position": layout["position"].to(dtype)}
        own |= {"neck": (), "_cache": {}, "images": images}
        return CachedMemory(**layout | own)

    def queries(self, memory: CachedMemory) -> Queries:
        """The detector's own queries, from the cache where they are known."""
        return memory.cached("own", lambda: self._own(memory))

    def decode(
        self, memory: CachedMemory, queries: Queries, layers: Sequence[int] | None = None
    ) -> Predictions:
        """The predictions at the queries; those of the detector's own come from the cache."""
        if queries.attends_to or queries.boxes.requires_grad:
            return super().decode(memory, queries, layers)
        parts, own = queries.split(), self.queries(memory)
        known = _own_groups(parts, own)
        if not known:
            return super().decode(memory, queries, layers)
        answers = {name: self._answers(memory, len(parts[name]), layers) for name in known}
        if others := [part for name, part in parts.items() if name not in known]:
            joined = Queries.join(others)
            answers |= super().decode(memory, joined, layers).split(joined.groups)
        return Predictions.cat([answers[name] for name in parts], dim=2)

    @torch.no_grad()
    def _own(self, memory: CachedMemory) -> Queries:
        for i, image in enumerate(memory.images):
            if image.own is None:
                image.own = self._shared_parts(self.detector.queries(memory.select([i])).to("cpu"))
        own = [cast(Queries, image.own) for image in memory.images]
        given = [name for name in PARTS if getattr(own[0], name) is not None]
        parts = {name: torch.cat([getattr(queries, name) for queries in own]) for name in given}
        return Queries(**parts).to(memory.tokens.device)

    def _shared_parts(self, own: Queries) -> Queries:
        """The queries, made of the first image's tensors where they are equal, to save memory."""
        parts = {n: t for n in PARTS if (t := getattr(own, n)) is not None}
        for name, part in parts.items():
            first = self._shared.setdefault(name, part.clone())
            parts[name] = first if torch.equal(first, part) else part
        return replace(own, **parts)

    @torch.no_grad()
    def _answers(
        self, memory: CachedMemory, count: int, layers: Sequence[int] | None
    ) -> Predictions:
        """The predictions at the first ``count`` own queries."""
        key = count, None if layers is None else tuple(layers)
        for i, image in enumerate(memory.images):
            if key not in image.answers:
                alone = memory.select([i])
                found = super().decode(alone, self.queries(alone).first(count), layers)
                if len(image.answers) >= MOST_ANSWERS:
                    image.answers.pop(next(iter(image.answers)))  # the oldest
                image.answers[key] = found.to("cpu")
        answers = [image.answers[key] for image in memory.images]
        return Predictions.cat(answers, dim=1).to(memory.tokens.device)

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
        """Move or cast the detector; what depends on the former device or dtype is dropped."""
        self._memories.clear()
        self._shared.clear()
        for image in self._images.values():
            image.own = None
            image.answers.clear()
        return super()._apply(fn, *args, **kwargs)


def _own_groups(parts: Mapping[str, Queries], own: Queries) -> set[str]:
    """The names of the groups that are the first of the ``own`` queries, at least one, with the
    same embeddings.

    Where memory does not tell, values are compared, all at once, because reading the result waits
    for a GPU.
    """
    known: set[str] = set()
    compared: dict[str, Tensor] = {}
    for name, part in parts.items():
        first = own.first(len(part))
        found = [_equal(getattr(part, n), getattr(first, n)) for n in PARTS]
        if len(part) == 0 or any(x is False for x in found):
            continue
        if values := [x for x in found if isinstance(x, Tensor)]:
            compared[name] = torch.stack(values).all()
        else:
            known.add(name)
    if compared:
        equal = torch.stack(list(compared.values())).cpu().tolist()
        known |= {name for name, is_own in zip(compared, equal, strict=True) if is_own}
    return known


def _equal(a: Tensor | None, b: Tensor | None) -> bool | Tensor:
    """Whether two tensors are equal, as a tensor where their values have to be compared."""
    if a is None or b is None or a.shape != b.shape:
        return a is b
    return a.is_set_to(b) or (a == b).all()


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
