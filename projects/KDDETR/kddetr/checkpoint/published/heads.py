"""Decoder heads: one for all layers or one a layer, whichever way a file and a model have them."""

import re
from collections.abc import Iterable, Mapping

import torch

__all__ = [
    "count_heads",
    "head_index",
    "heads_are_left_out",
    "one_if_equal",
    "spread",
]

_HEAD = re.compile(r"decoder\.(class|box)_heads\.(\d{1,2})\.(.+)")
State = Mapping[str, torch.Tensor]


def head_index(name: str) -> tuple[str, int, str] | None:
    """(`class` or `box`, layer, name inside the head) of a decoder head's weight, else None."""
    match = _HEAD.fullmatch(name)
    return (match[1], int(match[2]), match[3]) if match else None


def _layers(names: Iterable[str], kind: str) -> set[int]:
    found = (head_index(name) for name in names)
    return {index for which, index, _ in filter(None, found) if which == kind}


def heads_are_left_out(names: Iterable[str], kind: str) -> bool:
    """Whether exactly one layer has such a head."""
    return len(_layers(names, kind)) == 1


def count_heads(names: Iterable[str]) -> int:
    """Class heads of the decoder, 0 when these are no names of a detector."""
    return len(_layers(names, "class"))


def spread(state: State, count: int) -> dict[str, torch.Tensor]:
    """Heads that only one layer has become those of `count` layers; the tensors are shared."""
    spread_out = dict(state)
    for name, value in state.items():
        index = head_index(name)
        if index and heads_are_left_out(state, index[0]):
            for layer in range(count):
                spread_out[f"decoder.{index[0]}_heads.{layer}.{index[2]}"] = value
    return spread_out


def one_if_equal(state: State) -> dict[str, torch.Tensor]:
    """One head of each kind, the first, when those of all layers are equal; else what was given."""
    rest = {}
    for name, value in state.items():
        index = head_index(name)
        if not index or not index[1]:
            rest[name] = value
        else:
            first = state.get(f"decoder.{index[0]}_heads.0.{index[2]}")
            if first is None or first.shape != value.shape or not torch.equal(first, value):
                return dict(state)
    return rest
