"""Sizes that stay variables when a detector is exported for images of any size.

In an exported graph the size of a feature map is a variable. A tensor made from a list of sizes, or
Python's ``min`` of a size, would keep the numbers of the images that the graph was made with.
"""

import functools
from collections.abc import Callable

import torch
from torch import Tensor


def level_size(height: int, width: int, device: torch.device) -> Tensor:
    """The size of a feature level as a tensor: (2,) width, height, float32."""
    sizes = [torch.full((), n, dtype=torch.float32, device=device) for n in (width, height)]
    return torch.stack(sizes)


def best(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The ``count`` largest of the scores (B, S) of each image in descending order, or all S, and
    their indices.
    """
    if torch.jit.is_tracing():
        return _scripted()(scores, count)
    return scores.topk(torch.sym_min(count, scores.shape[1]), dim=1)


@functools.cache
def _scripted() -> Callable[[Tensor, int], tuple[Tensor, Tensor]]:
    """:func:`best` for torch.jit.trace, which would keep the minimum of the traced image."""

    def best_of_all(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
        return scores.topk(min(count, scores.shape[1]), dim=1)

    return torch.jit.script(best_of_all)
