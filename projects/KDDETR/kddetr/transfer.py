"""Bringing numbers to a device without waiting for it.

A copy from ordinary memory to a GPU makes the host wait until the GPU has finished all that it was
given before, and then the GPU waits for the host. A copy from pinned memory does not.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def to_device(values: Tensor, device: torch.device | str) -> Tensor:
    """The values on a device; a copy from the CPU to a GPU does not make the host wait.

    The memory allocator of PyTorch keeps the pinned copy until the GPU has read it.
    """
    device = torch.device(device)
    if device.type == "cuda" and values.device.type == "cpu":
        return values.pin_memory().to(device, non_blocking=True)
    return values.to(device)


def numbers(
    data: Sequence[Any] | int | float, device: torch.device, dtype: torch.dtype | None = None
) -> Tensor:
    """``torch.tensor(data, dtype=dtype, device=device)``, without waiting."""
    if torch.compiler.is_compiling():  # a constant of the compiled program
        return torch.tensor(data, dtype=dtype, device=device)
    return to_device(torch.tensor(data, dtype=dtype), device)


def rows(values: Tensor, indices: Sequence[int]) -> Tensor:
    """``values[list(indices)]``, for which PyTorch would copy the indices to the device."""
    return torch.stack([values[i] for i in indices]) if indices else values[:0]
