"""Object queries: the questions that a decoder answers about encoded images.

Shape letters: B images, N queries, C embedding width.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from .errors import UsageError
from .transfer import to_device


@dataclass(frozen=True)
class Queries:
    """Object queries of a batch: a reference box each and, for some detectors, embeddings.

    Attributes:
        boxes: (B, N, 4) reference boxes ``cxcywh`` in the frame of each *unpadded* image, [0, 1];
            a box may reach beyond it. Or (B, N, 2), only the centre, where a query has no size yet
            (one-stage Deformable DETR).
        content: (B, N, C) content embedding that the decoder starts from; None: zeros.
        position: (B, N, C) positional embedding that comes with the query, learned (one-stage
            Deformable DETR) or computed once from its box (two-stage); None where the decoder
            computes it in every layer.
        groups: name and number of queries of consecutive groups, in order. Queries of different
            groups do not attend to one another. Empty: all queries are one group.
        attends_to: exceptions to that rule: a group's name and the other groups that it does attend
            to. A denoising group attends to the detector's own queries, but not the reverse.

    Raises:
        UsageError: the shapes do not go together, or the groups do not add up to N queries.
    """

    boxes: Tensor
    content: Tensor | None = None
    position: Tensor | None = None
    groups: Mapping[str, int] = field(default_factory=dict)
    attends_to: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.boxes.dim() != 3 or self.boxes.shape[-1] not in (2, 4):
            raise UsageError(
                f"Queries.boxes must be (B, N, 4) or (B, N, 2), not {tuple(self.boxes.shape)}."
            )
        for name in ("content", "position"):
            value = getattr(self, name)
            if value is not None and value.shape[:2] != self.boxes.shape[:2]:
                raise UsageError(
                    f"Queries.{name} has the shape {tuple(value.shape)} and boxes has the shape"
                    f" {tuple(self.boxes.shape)}: their first two sizes must be equal."
                )
        if self.groups and sum(self.groups.values()) != self.boxes.shape[1]:
            raise UsageError(
                f"Queries.groups {dict(self.groups)} add up to {sum(self.groups.values())} queries,"
                f" but there are {self.boxes.shape[1]}."
            )
        named = {*self.attends_to, *(n for names in self.attends_to.values() for n in names)}
        if unknown := named - self.groups.keys():
            raise UsageError(f"Queries.attends_to names {sorted(unknown)}, which are not groups.")

    def __len__(self) -> int:
        return self.boxes.shape[1]

    def named(self, name: str) -> "Queries":
        """The same queries as a single group with that name."""
        return replace(self, groups={name: len(self)}, attends_to={})

    def first(self, count: int | None) -> "Queries":
        """The first ``count`` queries as a single group; None, or a count above N, keeps all."""
        return replace(self, groups={}, attends_to={})._map(lambda t: t[:, :count])

    def boxes_only(self) -> "Queries":
        """The same queries without embeddings.

        Raises:
            UsageError: the queries have a centre but no size.
        """
        self.require_sizes()
        return replace(self, content=None, position=None)

    def require_sizes(self) -> None:
        """Check that the queries are boxes.

        Raises:
            UsageError: they have a centre but no size.
        """
        if self.boxes.shape[-1] != 4:
            raise UsageError(
                "These points have a centre but no size, like all queries of a one-stage Deformable"
                " DETR, and this detector needs boxes: take the points of a detector whose queries"
                " are boxes (DAB-DETR, DINO, two-stage Deformable DETR)."
            )

    def detach(self) -> "Queries":
        """The same queries without a gradient."""
        return self._map(Tensor.detach)

    def to(self, device: torch.device | str) -> "Queries":
        """The same queries on a device."""
        return self._map(lambda t: to_device(t, device))

    def select(self, images: Sequence[int]) -> "Queries":
        """The queries of the images with these indices."""
        return self._map(lambda t: torch.stack([t[i] for i in images]))

    def split(self) -> dict[str, "Queries"]:
        """The queries of each group, by its name; without groups, all of them under ``queries``."""
        parts, start = {}, 0
        ungrouped = replace(self, groups={}, attends_to={})
        for name, size in (self.groups or {"queries": len(self)}).items():
            part = ungrouped._map(lambda t, at=start, n=size: t.narrow(1, at, n))
            parts[name], start = part.named(name), start + size
        return parts

    def _map(self, function: Callable[..., Tensor]) -> "Queries":
        parts = {n: getattr(self, n) for n in ("boxes", "content", "position")}
        mapped: dict[str, Any] = {n: t if t is None else function(t) for n, t in parts.items()}
        return replace(self, **mapped)

    @staticmethod
    def join(parts: Sequence["Queries"]) -> "Queries":
        """One set of queries with the groups of all ``parts``, which do not attend to one another.

        Raises:
            UsageError: a part has no named group, two groups have the same name, or only some of
                the parts have content or positional embeddings.
        """
        groups: dict[str, int] = {}
        attends_to: dict[str, Sequence[str]] = {}
        for part in parts:
            if not part.groups or groups.keys() & part.groups.keys():
                raise UsageError(
                    "Queries can be joined when each part has groups with names of its own, and"
                    f" these have {[dict(p.groups) for p in parts]}: name them with"
                    " Queries.named()."
                )
            groups.update(part.groups)
            attends_to.update(part.attends_to)
        joined: dict[str, Any] = {}
        for name in ("boxes", "content", "position"):
            values = [getattr(part, name) for part in parts]
            if any(v is None for v in values) != all(v is None for v in values):
                raise UsageError(
                    f"Only some of the queries to join have a {name} embedding: give it to all."
                )
            joined[name] = None if values[0] is None else torch.cat(values, dim=1)
        return Queries(**joined, groups=groups, attends_to=attends_to)
