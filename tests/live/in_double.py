"""Run a model in double precision throughout, whatever precision its code asks for."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


class _DoubleForFloat(TorchFunctionMode):
    """Every request for float32 gets float64."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is Tensor.float:
            func = Tensor.double
        kwargs = {k: _widened(v) for k, v in (kwargs or {}).items()}
        return func(*map(_widened, args), **kwargs)


def _widened(value):
    return torch.float64 if value is torch.float32 else value


@contextmanager
def precision(dtype: torch.dtype) -> Iterator[None]:
    """Code in here computes in `dtype`, float32 or float64, and nowhere in less.

    Models keep sines, references and answers in float32 at least; rounding those would hide what a
    comparison in float64 is there to see.
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
