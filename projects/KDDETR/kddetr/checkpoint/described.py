"""A config node as plain containers, which a file can hold, and what such containers may call.

A detector is built from the containers in a file by calling classes and functions by their names.
Only those of the packages below are called, so that a file cannot run anything else. Of PyTorch
those are its layers and their functions, because other parts of ``torch.nn`` read any attribute and
call what they are given. Text that omegaconf would turn into something else is refused.
"""

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

# The private function is the inverse of ``locate``; LazyConfig.save uses it too.
from detectron2.utils.registry import _convert_target_to_string, locate
from omegaconf import OmegaConf, SCMode
from torch import nn

from ..errors import CheckpointError, UsageError
from ..renamed import current_name
from .files import shown

TARGET = "_target_"
LOCATE = "detectron2.utils.registry.locate"  # a class as an argument: its name is an argument
# What a detector is made of, and what resizes an image.
DETECTOR_PACKAGES = (
    "kddetr.detectors",
    "detectron2.modeling",
    "detectron2.layers",
    "fvcore.nn",
    "torch.nn",
)
IMAGE_PACKAGES = ("kddetr.data.mapper", "kddetr.data.ShortestEdge", "detectron2.data.transforms")
IMAGE_PACKAGES += ("fvcore.transforms",)
# The first reads configs and checkpoints of another project by means that run code, the second
# fetches files.
_NEVER = ("detectron2.modeling.mmdet_wrapper", "kddetr.detectors.hf.build.huggingface_arguments")
_LAYERS, _FUNCTIONS = "torch.nn.modules", "torch.nn.functional"
_DEEPEST = 50  # levels of containers, of which a detector has about ten


def described(value: Any, otherwise: Callable[[Any], Any] | None = None) -> Any:
    """A config node, or a value in it, as dictionaries, lists, numbers and text.

    Args:
        value: a LazyConfig node; its interpolations are resolved.
        otherwise: is called with every object that cannot be described, and its result is taken;
            None: such an object is an error.

    Returns:
        The containers; the callable of a LazyCall is given by its import path.

    Raises:
        UsageError: an object, a lambda or a partial function is no plain value.
    """
    if OmegaConf.is_config(value):
        mode = SCMode.INSTANTIATE
        value = OmegaConf.to_container(value, resolve=True, structured_config_mode=mode)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        first = {TARGET: _target(value[TARGET], otherwise)} if TARGET in value else {}
        rest = {str(k): described(v, otherwise) for k, v in value.items() if k != TARGET}
        return first | rest
    if fields := _fields(value):
        arguments = {name: getattr(value, name) for name in fields}
        return {TARGET: _target(type(value), otherwise)} | described(arguments, otherwise)
    if isinstance(value, list | tuple):
        return [described(item, otherwise) for item in value]
    if _has_a_name(value):
        return {TARGET: LOCATE, "name": _target(value, otherwise)}
    return _undescribed(value, otherwise)


def _fields(value: Any) -> Sequence[str]:
    """The arguments that a dataclass or a named tuple was made of; empty for another value."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [field.name for field in dataclasses.fields(value) if field.init]
    return getattr(value, "_fields", ()) if isinstance(value, tuple) else ()


def _target(value: Any, otherwise: Callable[[Any], Any] | None) -> Any:
    """The import path of a class or function."""
    if isinstance(value, str):
        return value
    return (
        _convert_target_to_string(value) if _has_a_name(value) else _undescribed(value, otherwise)
    )


def _has_a_name(value: Any) -> bool:
    """Whether a class or function is found again by its name: a lambda is not."""
    is_kind = inspect.isclass(value) or inspect.isroutine(value)
    return is_kind and "<" not in getattr(value, "__qualname__", "<")


def _undescribed(value: Any, otherwise: Callable[[Any], Any] | None) -> Any:
    if otherwise is None:
        raise UsageError(
            f"A {type(value).__name__} cannot be described by plain values: write a LazyCall of a"
            " class or function that has a name of its own."
        )
    return otherwise(value)


def check_calls(tree: Any, packages: Sequence[str], source: str, depth: int = 0) -> Any:
    """A copy of plain containers with today's names, once everything that they call is allowed.

    Args:
        tree: what :func:`described` made, as it was read from a file.
        packages: the names of the packages whose classes and functions may be called.
        source: the file, for messages.
        depth: in how many containers the tree is.

    Raises:
        CheckpointError: something else would be called, a name is not found, or the containers are
            nested too deeply.
    """
    if depth > _DEEPEST:
        raise CheckpointError(
            f"The card of {source} is damaged: it has more than {_DEEPEST} containers in one"
            " another. Give the detector's config instead."
        )
    if isinstance(tree, list):
        return [check_calls(item, packages, source, depth + 1) for item in tree]
    if isinstance(tree, str):
        # An argument such as an override of a model zoo's config could set another call, and an
        # interpolation could make one: what is described has none.
        return _refuse(tree, source) if TARGET in tree or "${" in tree else tree
    if not isinstance(tree, Mapping):
        return tree
    checked = {
        k: v if k == TARGET else check_calls(v, packages, source, depth + 1)
        for k, v in tree.items()
    }
    if TARGET in tree:
        if tree[TARGET] == LOCATE:
            checked["name"] = _allowed(tree.get("name"), packages, source)
        else:
            checked[TARGET] = _allowed(tree[TARGET], packages, source)
    return checked


def _allowed(name: Any, packages: Sequence[str], source: str) -> str:
    """Today's import path of a class or function that may be called."""
    if not isinstance(name, str):
        return _refuse(type(name).__name__, source)
    name = current_name(name) or name
    if not _is_inside(name, packages):  # before it is imported
        return _refuse(name, source)
    try:
        found = locate(name)
    except Exception as error:  # whatever an import raises
        raise CheckpointError(
            f"The card of {source} names {shown(name)}, which this installation does not have"
            f" ({shown(error)}): install the version of its card, or give the detector's config."
        ) from error
    # The path may lead through a module to what that has imported, such as its module os.
    own = f"{getattr(found, '__module__', '')}.{getattr(found, '__qualname__', '')}"
    may = _is_inside(own, packages) and _makes_a_part(found, name, own)
    return name if may else _refuse(name, source)


def _makes_a_part(found: Any, name: str, own: str) -> bool:
    """Whether something of the allowed packages, called or as an argument, is a part of a detector:
    a class or function, and no method that acts on an object.

    Args:
        found: what is at the path ``name``.
        own: the path at which it is defined.
    """
    if inspect.isclass(found):
        return not own.startswith("torch.") or (
            _is_inside(own, [_LAYERS]) and issubclass(found, nn.Module)
        )
    if not inspect.isroutine(found):
        return False
    if own.startswith("torch."):
        return own == f"{_FUNCTIONS}.{found.__name__}"
    if own.startswith("kddetr.detectors."):  # of its functions, those that it offers
        return name == f"kddetr.detectors.{found.__name__}"
    parent, _, method = name.rpartition(".")
    if not inspect.isclass(kind := locate(parent)):
        return True
    return isinstance(inspect.getattr_static(kind, method), staticmethod | classmethod)


def _is_inside(name: str, packages: Sequence[str]) -> bool:
    def under(package: str) -> bool:
        return name == package or name.startswith(f"{package}.")

    return any(map(under, packages)) and not any(map(under, _NEVER))


def _refuse(name: str, source: str) -> Any:
    raise CheckpointError(
        f"The card of {source} calls {shown(name)}, and a file may only call what detectors are"
        " made of here (kddetr.detectors, detectron2.modeling, detectron2.layers, torch.nn): if you"
        " trust the code, give the detector's config, which then is used instead of the card."
    )
