"""The memory of a detector of the RT-DETR line: the encoder's maps as tokens, and their ranking.

Shape letters: B images, S tokens (all cells of all levels, fine to coarse, each level row by row),
N queries, K classes, C embedding width.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from ...transfer import rows
from ..batch import CachingMemory, level_maps


@dataclass(frozen=True)
class TokenMemory(CachingMemory):
    """The encoded images of a batch. All of them have one size inside the detector, so that there
    is no padding, and an image does not depend on its batch in evaluation mode.

    Attributes:
        tokens: (B, S, C).
        shapes: (H, W) of every level.
        image_sizes: (h, w) in pixels of the images as they were given.
        neck: (B, C', H, W) of every level, the maps that entered the encoder.
    """

    tokens: Tensor
    shapes: tuple[tuple[int, int], ...]
    image_sizes: tuple[tuple[int, int], ...] = ()
    neck: tuple[Tensor, ...] = ()

    def __len__(self) -> int:
        return len(self.tokens)

    def maps(self) -> dict[str, Sequence[Tensor]]:
        """The maps of every level, (B, C, H, W): "neck" and "encoder"."""
        encoded = level_maps(self.tokens, self.shapes)
        return {"neck": self.neck, "encoder": encoded}

    def _select(self, images: list[int]) -> "TokenMemory":
        return replace(
            self,
            tokens=rows(self.tokens, images),
            image_sizes=tuple(self.image_sizes[i] for i in images),
            neck=tuple(rows(level, images) for level in self.neck),
            _cache={},
        )


@dataclass(frozen=True)
class Ranking:
    """What the encoder's heads say about each token, and the tokens that become queries.

    Attributes:
        features: (B, S, C) what the heads see of each token, and a query's content.
        logits: (B, S, K).
        boxes: (B, S, 4) logits of the box ``cxcywh`` that each token predicts.
        anchors: (1, S, 4) logits of the box of each token's cell, from which it predicts.
        usable: (1, S) bool, whether the token's anchor lies in the image.
        selected: (B, N) tokens that become queries, best first.
    """

    features: Tensor
    logits: Tensor
    boxes: Tensor
    anchors: Tensor
    usable: Tensor
    selected: Tensor

    def of_tokens(self, values: Tensor, tokens: Tensor) -> Tensor:
        """(B, M, D) values of (B, M) tokens, among (B, S, D) values."""
        return values.gather(1, tokens[..., None].expand(-1, -1, values.shape[-1]))
