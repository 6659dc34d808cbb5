"""Arrays of numbers in pickles: rebuilt by stand-ins for numpy's functions, never by those.

numpy believes a pickle: one that calls its bytes objects has them followed as addresses, one that
sets flags on a type changes that type for the whole process. What stands in here takes the names of
number types, checks lengths, and gives numpy nothing but what numpy itself has just made.
"""

import collections
import pickle
import re
from typing import Any

import numpy as np

__all__ = ["STAND_INS", "ArrayUnpickler", "NotNumbersError", "is_number"]

_NUMBERS = re.compile(r"[<>=|]?(?:b1|[iu][1248]|f[248]|c8|c16)")
_PLAIN = (None, None, None, -1, -1, 0)  # no subarray, names, fields, sizes or flags of its own


class NotNumbersError(ValueError):
    """An array in a file is one of texts, objects or the like; the message says of which."""


def is_number(dtype: np.dtype) -> bool:
    """Whether it is a type that PyTorch has too: truth values, integers, floats, complex."""
    return bool(_NUMBERS.fullmatch(dtype.str))


class _Type:
    """In place of numpy.dtype."""

    def __init__(self, code: str, *_: Any) -> None:
        if not (isinstance(code, str) and _NUMBERS.fullmatch(code)):
            raise NotNumbersError(f"an array of type {str(code)[:20]!r}")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple) -> None:
        _, order, *rest = state
        if order not in ("<", ">", "=", "|") or tuple(rest) != _PLAIN:
            raise ValueError("an array with a type of its own")
        self.dtype = self.dtype.newbyteorder(order)


class _Array(np.ndarray):
    """In place of numpy.ndarray: it fills itself from a pickle, and is pickled as a plain one."""

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


class _Call:
    """A function without attributes, for a pickle may set those of whatever it names."""

    __slots__ = ()


class _Reconstruct(_Call):
    __slots__ = ()

    def __call__(self, kind: type, *_: Any) -> _Array:
        if kind is not _Array:
            raise ValueError("an array of a class of its own")
        return _Array()


class _FromBuffer(_Call):
    """How protocol 5 writes an array."""

    __slots__ = ()

    def __call__(self, raw: bytes, kind: _Type, shape: tuple, order: str) -> _Array:
        array = _Array()
        array.__setstate__((shape, kind, order == "F", raw))
        return array


class _Scalar(_Call):
    __slots__ = ()

    def __call__(self, kind: _Type, raw: bytes) -> np.generic:
        return _filled((), kind, raw, "C")[()]


class _Encode(_Call):
    """How protocol 2 writes bytes that are any."""

    __slots__ = ()

    def __call__(self, value: str, encoding: str) -> bytes:
        if encoding != "latin1":
            raise ValueError("bytes in a strange encoding")
        return value.encode("latin1")


class _NoBytes(_Call):
    """How protocol 2 writes those that are none."""

    __slots__ = ()

    def __call__(self) -> bytes:
        return b""


# (module, name) in a file -> what is called. numpy 2 has other modules than numpy 1.
STAND_INS = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Type,
    ("_codecs", "encode"): _Encode(),
    **{(module, "bytes"): _NoBytes() for module in ("builtins", "__builtin__")},
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _Reconstruct() for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _Scalar() for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _FromBuffer() for core in ("core", "_core")},
}


# The one written in Python: the other one gives out memory for a billion entries if a damaged file
# numbers one so.
class ArrayUnpickler(pickle._Unpickler):
    """Unpickles dictionaries of numpy arrays, as Detectron2's `.pkl` files are, and nothing else.

    Raises:
        pickle.UnpicklingError: the file names anything else, or is no pickle.
        NotNumbersError: an array is not one of numbers.
    """

    def find_class(self, module: str, name: str) -> Any:
        """What a name in the file stands for."""
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) in STAND_INS:
            return STAND_INS[module, name]
        raise pickle.UnpicklingError(f"not allowed: {module}.{name}")
