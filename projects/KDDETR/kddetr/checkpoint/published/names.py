"""Tables of names: what a published project calls each weight, and what this one calls it.

A table is finite: with the numbers of layers and levels it lists every name of a file, so what is
missing and what is left over are known without a model. Names are facts of those who chose them.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from ...errors import CheckpointError

__all__ = ["Names", "Sizes", "join_parts", "rename", "sizes_of"]

Value = TypeVar("Value")
_MOST = 99  # layers or levels
_ENDS = ("weight", "bias")


@dataclass(frozen=True)
class Sizes:
    """How often the repeated parts of a detector are there."""

    encoder_layers: int
    decoder_layers: int
    levels: int
    extra_levels: int


class Names:
    """Pairs (their name, ours) with placeholders.

    `{e}` is an encoder layer, `{d}` a decoder layer or its head, `{l}` a level, `{x}` an extra
    level, `{y}` the same counted behind the other levels, `{D}` the number of decoder layers, `*`
    stands for `weight` and for `bias`. Several of their names may have one of ours: then they are
    the same weight, and one of them in a file is enough. `name#0`, `name#1`, ... are the parts of
    `name`, one below the other. An empty name of ours drops the weight.

    Args:
        rows: the pairs.
        heads_beyond: heads counted behind those of the decoder layers; None: heads have no numbers.
    """

    def __init__(self, rows: Iterable[tuple[str, str]], *, heads_beyond: int | None = None) -> None:
        self.rows = tuple(rows)
        self.heads_beyond = heads_beyond

    def of(self, sizes: Sizes) -> dict[str, str]:
        """Their name -> ours, for a detector of these sizes."""
        return {a: b for row in self.rows for a, b in _expanded(*row, sizes)}


def _expanded(theirs: str, ours: str, sizes: Sizes) -> Iterator[tuple[str, str]]:
    counts = {
        "e": sizes.encoder_layers,
        "d": sizes.decoder_layers,
        "l": sizes.levels,
        "x": sizes.extra_levels,
    }
    index = next((name for name in counts if f"{{{name}}}" in theirs + ours), "")
    for i in range(counts.get(index, 1)):
        values = {index or "_": i, "y": sizes.levels + i, "D": sizes.decoder_layers}
        a, b = theirs.format(**values), ours.format(**values)
        if "*" in a:
            yield from ((a.replace("*", end), b.replace("*", end)) for end in _ENDS)
        else:
            yield a, b


def sizes_of(state: Mapping[str, Any], names: Names) -> Sizes:
    """Numbers of layers and levels of a file whose names are those of a table.

    A number of three digits counts as none: a name alone may not decide how long the table gets.
    """

    def count(pattern: str) -> int:
        found = [int(m[1]) for m in (re.match(pattern, name) for name in state) if m]
        return max(found, default=-1) + 1

    layers = count(r"(?:transformer|model)\.decoder\.layers\.(\d{1,2})\.")
    if names.heads_beyond is not None:
        heads = count(r"(?:\w+\.decoder\.)?(?:class|bbox)_embed\.(\d{1,2})\.")
        layers = max(layers, heads - names.heads_beyond)
    if any(name.startswith("neck.") for name in state):
        levels, extra = count(r"neck\.convs\.(\d{1,2})\."), count(r"neck\.extra_convs\.(\d{1,2})\.")
    else:
        # One list there: the levels that are made anew are those that a strided 3 x 3 makes.
        projection = r"(?:model\.)?input_proj\.(\d{1,2})\."
        every = count(projection)
        plain = [
            int(match[1])
            for name, value in state.items()
            if (match := re.fullmatch(projection + r"0\.weight", name)) and value.shape[-1:] == (1,)
        ]
        levels = max(plain, default=-1) + 1
        extra = every - levels
    for name, value in state.items():
        if re.fullmatch(r"(?:transformer|model)\.level_embeds?", name) and hasattr(value, "shape"):
            extra = max(extra, min(sum(value.shape[:1]), _MOST) - levels)
    return Sizes(
        encoder_layers=max(count(r"(?:transformer|model)\.encoder\.layers\.(\d{1,2})\."), 1),
        decoder_layers=max(layers, 1),
        levels=max(levels, 1),
        extra_levels=max(extra, 0),
    )


def rename(state: Mapping[str, Value], names: Names, source: str = "") -> dict[str, Value]:
    """The values under this project's names, as far as the table knows theirs.

    Args:
        state: weights (or anything else) by their names.
        names: the table.
        source: where they come from, for messages.

    Raises:
        CheckpointError: two names of one weight carry different values.
    """
    known = names.of(sizes_of(state, names))
    renamed: dict[str, Value] = {}
    first: dict[str, str] = {}
    for name, value in state.items():
        ours = known.get(name)
        if not ours:
            continue
        if ours in renamed and not _same(renamed[ours], value):
            raise CheckpointError(
                f"{source or 'The checkpoint'} holds {first[ours]} and {name}, two names of one "
                "weight, with different values: it is no file of a whole model."
            )
        renamed.setdefault(ours, value)
        first.setdefault(ours, name)
    return renamed


def _same(a: Any, b: Any) -> bool:
    if not isinstance(a, torch.Tensor):
        return a == b
    if a.shape != b.shape:
        return False
    # One storage is the rule: a saved model writes a shared tensor once.
    return (a.data_ptr() == b.data_ptr() and a.stride() == b.stride()) or torch.equal(a, b)


def join_parts(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """`name#0`, `name#1`, ... put together to `name`, along the first axis.

    Raises:
        CheckpointError: the parts have different shapes.
    """
    joined: dict[str, torch.Tensor] = {k: v for k, v in state.items() if "#" not in k}
    for name in dict.fromkeys(key.split("#")[0] for key in state if "#" in key):
        parts = sorted(key for key in state if key.startswith(f"{name}#"))
        if len({state[part].shape for part in parts}) > 1 or not state[parts[0]].shape:
            shapes = ", ".join(str(list(state[part].shape)) for part in parts)
            raise CheckpointError(
                f"Query, key and value of {name} have the shapes {shapes}, which should be equal: "
                "it is no file of a whole model."
            )
        joined[name] = torch.cat([state[part] for part in parts])
    return joined
