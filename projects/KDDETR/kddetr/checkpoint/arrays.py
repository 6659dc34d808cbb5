"""Arrays of numbers in pickles, rebuilt by safe stand-ins for numpy's functions.

numpy does not check a pickle: bytes that the file declares to be objects are followed as addresses,
and a flag that it sets on a type changes that type for the whole process. The stand-ins accept only
types of numbers, check lengths, and pass to numpy only values that numpy itself has just made.
"""

import collections
import pickle
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from .inert import OBJECTS

_NUMBERS = re.compile(r"[<>=|]?(?:b1|[iu][1248]|f[248]|c8|c16)")
_PLAIN = (None, None, None, -1, -1, 0)  # no subarray, names, fields, sizes or flags of its own


class NotNumbersError(ValueError):
    """An array in a file holds no numbers; the message says what it holds instead."""


def is_number(dtype: np.dtype) -> bool:
    """Whether PyTorch has the type too: truth values, integers, floats, complex numbers."""
    return bool(_NUMBERS.fullmatch(dtype.str))


class _Type:
    """Stand-in for numpy.dtype."""

    def __init__(self, code: str, *_: Any) -> None:
        if not (isinstance(code, str) and _NUMBERS.fullmatch(code)):
            raise NotNumbersError(f"an array of type {str(code)[:20]!r}")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple) -> None:
        _, order, *rest = state
        if order not in ("<", ">", "=", "|") or tuple(rest) != _PLAIN:
            raise ValueError("an array with a structured type")
        self.dtype = self.dtype.newbyteorder(order)


class _Array(np.ndarray):
    """Stand-in for numpy.ndarray that a pickle can fill; it is pickled as a plain array."""

    def __new__(cls) -> "_Array":
        return np.ndarray.__new__(cls, 0)

    def __setstate__(self, state: tuple) -> None:
        shape, kind, fortran, raw = state[-4:]
        array = _filled(shape, kind, raw, "F" if fortran else "C")
        array = array.astype(array.dtype.newbyteorder("="), copy=False)
        super().__setstate__(array.__reduce__()[2])

    def __reduce_ex__(self, protocol: int) -> tuple:
        return self.view(np.ndarray).__reduce_ex__(protocol)


def _filled(shape: tuple, kind: _Type, raw: bytes | str, order: str) -> np.ndarray:
    raw = raw.encode("latin1") if isinstance(raw, str) else raw  # as Python 2 wrote it
    if not isinstance(kind, _Type):
        raise ValueError("an array without a type")
    array = np.ndarray(shape, kind.dtype, raw, order=order)
    if array.nbytes != len(raw):
        raise ValueError(f"an array of {array.nbytes} bytes with {len(raw)}")
    return array


class _Function:
    """A function whose attributes a pickle cannot set, as it may those of anything it names."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable) -> None:
        self._call = call

    def __call__(self, *args: Any) -> Any:
        return self._call(*args)

    def __setstate__(self, state: Any) -> None:
        raise ValueError("a function with attributes of its own")


def _reconstruct(kind: type, *_: Any) -> _Array:
    if kind is not _Array:
        raise ValueError("an array of a subclass of ndarray")
    return _Array()


def _from_buffer(raw: bytes, kind: _Type, shape: tuple, order: str) -> _Array:
    array = _Array()
    array.__setstate__((shape, kind, order == "F", raw))
    return array


def _scalar(kind: _Type, raw: bytes) -> np.generic:
    return _filled((), kind, raw, "C")[()]


def _encode(value: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise ValueError("bytes in an unknown encoding")
    return value.encode("latin1")


# (module, name) in a file -> what is called instead.
STAND_INS: dict[tuple[str, str], Callable] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Type,
    ("_codecs", "encode"): _Function(_encode),  # bytes in a pickle of protocol 2
    ("builtins", "bytes"): _Function(lambda: b""),  # empty ones
    ("__builtin__", "bytes"): _Function(lambda: b""),
}
for _core in ("numpy.core", "numpy._core"):  # numpy 1 and 2
    STAND_INS[f"{_core}.multiarray", "_reconstruct"] = _Function(_reconstruct)
    STAND_INS[f"{_core}.multiarray", "scalar"] = _Function(_scalar)
    STAND_INS[f"{_core}.numeric", "_frombuffer"] = _Function(_from_buffer)  # protocol 5


# The unpickler written in Python: the one in C takes memory for a billion entries when a damaged
# file gives an entry that number.
class ArrayUnpickler(pickle._Unpickler):
    """An unpickler for dictionaries of numpy arrays, such as Detectron2's ``.pkl`` files.

    Raises:
        pickle.UnpicklingError: the file names anything else, or is no pickle.
        NotNumbersError: an array is not one of numbers.
    """

    def load(self) -> Any:
        """The content of the file."""
        try:
            return super().load()
        except KeyError as error:  # a byte that stands for no instruction
            raise pickle.UnpicklingError("not a pickle") from error

    def find_class(self, module: str, name: str) -> Any:
        """What a name in the file stands for; only listed names are allowed."""
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if stand_in := STAND_INS.get((module, name)) or OBJECTS.get((module, name)):
            return stand_in
        raise pickle.UnpicklingError(f"not allowed: {module}.{name}")
