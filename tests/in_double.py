"""Run a model in float64 throughout, even where its code asks for float32."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


class _DoubleForFloat(TorchFunctionMode):
    """Replaces float32 by float64 in every call of a PyTorch function."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is Tensor.float:
            func = Tensor.double
        kwargs = {k: _widened(v) for k, v in (kwargs or {}).items()}
        return func(*map(_widened, args), **kwargs)


def _widened(value):
    return torch.float64 if value is torch.float32 else value


@contextmanager
def precision(dtype: torch.dtype) -> Iterator[None]:
    """A context in which all code computes in ``dtype``, float32 or float64.

    Models convert sine embeddings, references and predictions to float32. That rounding would hide
    the differences that a comparison in float64 is made to find.
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        if dtype is torch.float64:
            with _DoubleForFloat():
                yield
        else:
            yield
    finally:
        torch.set_default_dtype(before)
