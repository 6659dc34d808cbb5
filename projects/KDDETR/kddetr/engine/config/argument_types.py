"""Whether the values of a config are of the types that the arguments of a callable have.

A config has plain values and LazyCalls, whose results are not known before they are called. A
truth value is no number here, and neither is a text in digits.
"""

import collections.abc
import functools
import inspect
import math
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

from .calls import located, parameters_of

_SCALARS = (bool, int, float, str)
_LISTS = (
    *(list, tuple, set, frozenset),
    *(collections.abc.Sequence, collections.abc.Iterable, collections.abc.Collection),
)
_UNIONS = (typing.Union, types.UnionType)
# Every argument of these packages is annotated with care; elsewhere an annotation is trusted where
# it is a type of a single value.
_TYPED = ("kddetr.", "torch.optim.")
# Most arguments of this package have no annotation, and their defaults are of their types.
_BY_DEFAULT = "detectron2."


@functools.cache
def argument_types(target: Callable | str) -> dict[str, Any]:
    """The type of each argument of a callable that has one, by name.

    For an argument of Detectron2 without an annotation it follows from its default: a flag takes no
    number or text, and a number is no flag or text.
    """
    function = located(target)
    trusted = is_typed(function)
    by_default = str(getattr(function, "__module__", "")).startswith(_BY_DEFAULT)
    hints = _hints(function)
    found = {}
    for parameter in parameters_of(function) or ():
        hint = hints.get(parameter.name, parameter.annotation)
        default = parameter.default
        if hint is parameter.empty and by_default and type(default) in (bool, int, float):
            hint = bool | None if type(default) is bool else float | list | dict | None
        elif isinstance(hint, str) or not (trusted or _is_single(hint)):
            continue
        found[parameter.name] = hint | None if default is None and hint is not Any else hint
    return {name: hint for name, hint in found.items() if hint is not inspect.Parameter.empty}


def is_typed(function: Callable) -> bool:
    """Whether the annotations of a function or a class can be relied on."""
    return f"{getattr(function, '__module__', '')}.".startswith(_TYPED)


def _hints(function: Callable) -> dict[str, Any]:
    """The annotations of a function, or of the constructor of a class, without quotes."""
    if inspect.isclass(function):
        has_fields = hasattr(function, "__dataclass_fields__")
        function = function if has_fields else function.__init__
    try:
        return typing.get_type_hints(inspect.unwrap(function))
    except Exception:  # a name that is only imported for a type checker
        return {}


def _is_single(hint: Any) -> bool:
    parts = typing.get_args(hint) if typing.get_origin(hint) in _UNIONS else (hint,)
    return all(part in (*_SCALARS, type(None)) for part in parts)


def fits(value: Any, hint: Any) -> bool:
    """Whether a value of a config, in plain containers, can be an argument of this type."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in _UNIONS:
        return any(fits(value, part) for part in inner)
    if origin is typing.Literal:
        return any(value == part and type(value) is type(part) for part in inner)
    if origin is typing.Annotated:
        return fits(value, inner[0])
    if hint is None or hint is type(None):
        return value is None
    if isinstance(value, Mapping) and "_target_" in value:
        return True
    if hint is float:
        return _is_number(value)
    if hint in (bool, int, str):
        return type(value) is hint or (isinstance(value, hint) and not isinstance(value, bool))
    if (origin or hint) in _LISTS:
        return _fits_list(value, origin or hint, inner)
    if (origin or hint) in (dict, collections.abc.Mapping, collections.abc.MutableMapping):
        values = value.values() if isinstance(value, Mapping) else ()
        return isinstance(value, Mapping) and all(fits(v, (*inner, Any)[1]) for v in values)
    if (origin or hint) is collections.abc.Callable:
        return callable(value)
    if not isinstance(hint, type) or hint in (Any, object):
        return True  # also a type variable
    return not isinstance(value, (*_SCALARS, list, dict, type(None))) or _is_instance(value, hint)


def _fits_list(value: Any, kind: Any, inner: tuple) -> bool:
    if not isinstance(value, list | tuple):
        # An object that can be iterated over is made in a config file.
        return not isinstance(value, (*_SCALARS, Mapping, type(None)))
    if kind is tuple and inner and inner[-1] is not ...:
        return len(value) == len(inner) and all(map(fits, value, inner))
    return not inner or all(fits(item, inner[0]) for item in value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_instance(value: Any, hint: type) -> bool:
    try:
        return isinstance(value, hint)
    except TypeError:  # a protocol that cannot be tested
        return False


def described(hint: Any) -> str:
    """A type for messages, such as ``int or null``."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in _UNIONS:
        single = [part for part in inner if part in (*_SCALARS, type(None))]
        # A Tensor, which some arguments take too, cannot be written in a config.
        parts = single if set(single) & {int, float} else inner
        return " or ".join(dict.fromkeys(described(part) for part in parts))
    if origin is typing.Literal:
        return " or ".join(map(repr, inner))
    if hint is None or hint is type(None):
        return "null"
    if (origin or hint) is tuple and inner and inner[-1] is not ...:
        return f"list of {len(inner)} values ({', '.join(described(part) for part in inner)})"
    if (origin or hint) in _LISTS:
        return f"list of {described(inner[0])}" if inner else "list"
    if (origin or hint) in (dict, collections.abc.Mapping, collections.abc.MutableMapping):
        return "dict"
    return getattr(origin or hint, "__name__", str(hint))


def is_text(hint: Any) -> bool:
    """Whether an argument of this type is a text, such as a path or a name, and no number."""
    parts = typing.get_args(hint) if typing.get_origin(hint) in _UNIONS else (hint,)
    return str in parts and not {int, float, bool} & set(parts)


def finite(value: Any) -> bool:
    """False for infinity, NaN, and whole numbers beyond 64 bits, which PyTorch cannot hold."""
    if isinstance(value, int):
        return -(2**63) <= value < 2**63
    return not isinstance(value, float) or math.isfinite(value)


def wrong_type(key: str, value: Any, hint: Any) -> str:
    """The sentence for a value that is not of the type of its argument."""
    given = "null" if value is None else repr(value)
    advice = f"; a text is written in two quotes: \"{key}='...'\"" if is_text(hint) else ""
    return f"{key} must be of type {described(hint)}, not {given}{advice}."
