"""Where a checkpoint has its weights: which of its entries they are."""

import collections
import logging
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from ..errors import CheckpointError
from .arrays import is_number
from .coverage import grouped
from .files import shown

_log = logging.getLogger(__name__)

# Keys under which the usual layouts have the weights of the model itself.
_PLAIN = {"model", "state_dict", "model_state", "model_state_dict", "student", "detector", "net"}
_PLAIN |= {"network", "params", "weights", "module", "blobs", "checkpoint"}
# Words of the keys under which they have a moving average of these weights.
_AVERAGED = re.compile(r"(^|[_.-])(ema|swa|shadow|averaged?|moving)([_.-]|$)", re.IGNORECASE)
# Words of keys under which tensors are something else.
_OTHER = re.compile(r"optim|sched|scal|rng|random|loss|criterion|metric|teacher", re.IGNORECASE)
# Counters that other programs leave among the weights.
_NOT_WEIGHTS = re.compile(r"(^|\.)(total_params|total_ops)$|^n_averaged$|^__author__$")

Found = dict[str, Mapping]  # sets of weights by the keys that lead to them, such as "ema.module"


def is_container(key: Any) -> bool:
    """Whether an entry of a checkpoint is one that the usual layouts have weights under."""
    return isinstance(key, str) and (key in _PLAIN or bool(_AVERAGED.search(key)))


def averages(data: Mapping[str, Any]) -> list[str]:
    """The keys that lead to moving averages of the weights in a checkpoint."""
    return [key for key in _sets(data) if _AVERAGED.search(key)]


def weights_of(
    data: dict[str, Any],
    source: str,
    *,
    averaged: bool = False,
    say: Callable[[str], None] = _log.info,
) -> dict[str, torch.Tensor]:
    """The state dict in a checkpoint, wherever the usual layouts have it; arrays become tensors.

    The model's own weights are preferred to a moving average of them, and a student's to those of
    its teacher. Names keep their prefixes, see :func:`~kddetr.checkpoint.prefixes.without_prefix`.

    Args:
        data: what ``read_checkpoint`` returned.
        source: the file's name, for messages.
        averaged: take the moving average (``ema_model``, ``ema_state``), not the model beside it.
        say: is given sentences about a choice that was made.

    Raises:
        CheckpointError: there are no weights, several sets of which any may be meant, or an entry
            that is not an array of numbers, or is NaN.
    """
    key, state = _chosen(data, source, averaged, say)
    metadata = getattr(state, "_metadata", None)
    state = {k: v for k, v in state.items() if not _NOT_WEIGHTS.search(str(k))}
    problems = [
        f"{shown(name)} ({words})"
        for name, value in state.items()
        if (words := _no_weight(name, value))
    ]
    if problems and key:
        raise CheckpointError(
            f"The checkpoint {source} holds entries that are no weights under {shown(key)}: "
            f"{', '.join(problems[:8])}; save model.state_dict() there."
        )
    if problems or not state:
        raise CheckpointError(
            f"The checkpoint {source} holds no weights under any of the names"
            f" {', '.join(sorted(_PLAIN))} or ema: its entries are"
            f" {', '.join(map(shown, list(data)[:8])) or 'none'}; save it with"
            " torch.save({'model': model.state_dict()}, ...)."
        )
    tensors = collections.OrderedDict((name, _tensor(value)) for name, value in state.items())
    if nan := [name for name, value in tensors.items() if _is_nan(value)]:
        raise CheckpointError(
            f"The checkpoint {source} holds NaN instead of numbers in {grouped(nan)}: its training"
            " may have diverged; name an earlier checkpoint."
        )
    if isinstance(metadata, dict) and all(isinstance(entry, dict) for entry in metadata.values()):
        tensors._metadata = metadata  # version numbers that modules read when they are loaded
    return tensors


def _chosen(
    data: dict[str, Any], source: str, averaged: bool, say: Callable[[str], None]
) -> tuple[str, Mapping]:
    """(the keys that lead to the weights that are meant, the weights)."""
    found = _sets(data)
    means = {key: state for key, state in found.items() if _AVERAGED.search(key)}
    plain = {key: state for key, state in found.items() if key not in means}
    if averaged:
        if not means:
            raise CheckpointError(
                f"The checkpoint {source} holds no moving average of its weights; leave out --ema."
            )
        return _the_one(means, source)
    if plain:
        key, state = _the_one(plain, source)
        beside = [*means, *(["teacher"] if isinstance(data.get("teacher"), dict) else [])]
        if beside:
            say(
                f"{source}: the weights under {shown(key)} are taken; the file also holds"
                f" {shown(', '.join(beside))}."
            )
        return key, state
    if _holds_arrays(data):
        return "", data
    key, state = _the_one(means or _unnamed(data), source)
    if key:
        why = "as it holds no others" if means else "which are all that it holds"
        say(f"{source}: the weights under {shown(key)} are taken, {why}.")
        return key, state
    known = next((key for key in data if is_container(key) and isinstance(data[key], dict)), "")
    return known, data[known] if known else data


def _sets(data: Mapping[str, Any], outer: str = "") -> Found:
    """The sets of weights under keys that the usual layouts have, which may lie in one another."""
    found: Found = {}
    for key, value in data.items():
        if not (is_container(key) and isinstance(value, dict)):
            continue
        if _holds_arrays(value):
            found[outer + key] = value
        elif outer.count(".") < 3:
            found |= _sets(value, f"{outer}{key}.")
    return found


def _unnamed(data: Mapping[str, Any]) -> Found:
    """Sets of weights under other keys, where every entry is a weight."""
    return {
        key: value
        for key, value in data.items()
        if isinstance(key, str)
        and not _OTHER.search(key)
        and isinstance(value, dict)
        and value
        and not any(_no_weight(name, weight) for name, weight in value.items())
    }


def _the_one(found: Found, source: str) -> tuple[str, Mapping]:
    """The only set of weights, or the first of equal ones; ("", {}) where there is none.

    Raises:
        CheckpointError: there are several, and they differ.
    """
    first = next(iter(found), "")
    state = found.get(first, {})
    if any(not _equal(state, other) for other in found.values()):
        keys = [f"['{one}']" for one in shown(first).split(".")]
        raise CheckpointError(
            f"The checkpoint {source} holds several sets of weights, {shown(' and '.join(found))},"
            " and does not say which of them is the model; save the one that you mean alone:"
            f" torch.save({{'model': torch.load(FILE){''.join(keys)}}}, NEW_FILE), if it is the"
            " first."
        )
    return first, state


def _equal(one: Mapping, other: Mapping) -> bool:
    return one is other or (
        one.keys() == other.keys()
        and all(
            isinstance(value, torch.Tensor)
            and isinstance(other[name], torch.Tensor)
            and not _no_weight(name, value)
            and not _no_weight(name, other[name])
            and torch.equal(value, other[name])
            for name, value in one.items()
        )
    )


def _holds_arrays(entries: Mapping) -> bool:
    return any(isinstance(value, torch.Tensor | np.ndarray) for value in entries.values())


def _no_weight(name: Any, value: Any) -> str:
    """Why an entry cannot be loaded as a weight; empty if it can."""
    if not isinstance(name, str):
        return "a name that is not a string"
    if isinstance(value, np.ndarray):
        return "" if is_number(value.dtype) else f"an array of {value.dtype}"
    if not isinstance(value, torch.Tensor):
        return type(value).__name__
    if value.is_meta:
        return "a tensor without its numbers"
    if value.layout != torch.strided or value.is_nested:
        return "a sparse tensor"
    return "a quantized tensor" if value.is_quantized else ""


def _is_nan(value: torch.Tensor) -> bool:
    return value.is_floating_point() and bool(value.isnan().any())


def _tensor(value: torch.Tensor | np.ndarray) -> torch.Tensor:
    if isinstance(value, np.ndarray):
        value = np.ascontiguousarray(value, value.dtype.newbyteorder("=")).reshape(value.shape)
    return torch.as_tensor(value)
