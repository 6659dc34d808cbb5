"""Comparing weights with a model, and copying them into it.

Detectron2 only logs what did not fit. Here it is an error, with the names, if nothing fits, or with
``strict`` if anything does not.
"""

import re
from collections import OrderedDict
from dataclasses import dataclass

from torch import nn

from ..errors import CheckpointError
from .files import State, shown

# May be missing or left over: a counter that nothing reads, and constants that come from the config
# (the files of Detectron2's model zoo have anchors, and its models do not any more).
_OPTIONAL = re.compile(r"(^|\.)(num_batches_tracked|pixel_mean|pixel_std|cell_anchors\.\d+)$")


@dataclass(frozen=True)
class Coverage:
    """How a set of weights fits a model; all lists hold state-dict names.

    ``mismatched`` has entries (name, shape in the file, shape in the model).
    """

    loaded: list[str]
    missing: list[str]
    unexpected: list[str]
    mismatched: list[tuple[str, tuple[int, ...], tuple[int, ...]]]

    @property
    def complete(self) -> bool:
        """Whether nothing is missing, left over or of another shape."""
        return not (self.missing or self.unexpected or self.mismatched)

    def describe(self) -> str:
        """One readable paragraph: ``loaded 412/415; missing 3: head (bias, weight), ...``."""
        total = len(self.loaded) + len(self.missing) + len(self.mismatched)
        parts = [f"loaded {len(self.loaded)}/{total}"]
        parts += counted(self.missing, self.unexpected)
        if self.mismatched:
            sizes = [
                f"{k} {_size(a)} in the file, {_size(b)} in the model"
                for k, a, b in self.mismatched
            ]
            parts.append(f"of another shape {len(sizes)}: {_truncated(sizes)}")
        return "; ".join(parts)


def compare(model: nn.Module, state: State) -> Coverage:
    """How weights fit a model, by names and shapes."""
    own = model.state_dict(keep_vars=True)
    mismatched = [
        (key, tuple(value.shape), tuple(own[key].shape))
        for key, value in state.items()
        if key in own and value.shape != own[key].shape
    ]
    wrong = {key for key, _, _ in mismatched}
    loaded = [key for key in state if key in own and key not in wrong]
    # A shared tensor has several names in the model; one of them in the file is enough.
    covered = {id(own[key]) for key in loaded}
    return Coverage(
        loaded=loaded,
        missing=[
            key
            for key, value in own.items()
            if key not in state and id(value) not in covered and not is_optional(key)
        ],
        unexpected=[key for key in state if key not in own and not is_optional(key)],
        mismatched=mismatched,
    )


def load_weights(model: nn.Module, state: State, *, strict: bool, source: str) -> Coverage:
    """Copy ``state`` into ``model`` and report the coverage.

    Args:
        model: module that receives the weights.
        state: weights by the names in ``model.state_dict()``.
        strict: whether everything has to fit.
        source: where the weights come from, for messages.

    Raises:
        CheckpointError: no weight fits, or ``strict`` and something is missing, left over or of
            another shape; or numbers are of another kind; nothing was copied.
    """
    coverage = compare(model, state)
    if not coverage.loaded:
        raise CheckpointError(
            f"None of the {len(state)} weights in {source} fits the {type(model).__name__}: "
            f"{coverage.describe()}; name a file of this model."
        )
    if strict and not coverage.complete:
        raise CheckpointError(
            f"{source} does not fit the {type(model).__name__}, and all of it has to: "
            f"{coverage.describe()}; take the config that the file was trained with, or another "
            "file."
        )
    check_kinds(model, state, source)
    fitting = OrderedDict((key, state[key]) for key in coverage.loaded)
    fitting._metadata = getattr(state, "_metadata", None)
    model.load_state_dict(fitting, strict=False)
    return coverage


def check_kinds(model: nn.Module, state: State, source: str) -> None:
    """Refuse integers, truth values and complex numbers where the model has fractions.

    Raises:
        CheckpointError: there are such weights.
    """
    others = [
        name
        for name, own in model.state_dict().items()
        if name in state and own.is_floating_point() and not state[name].is_floating_point()
    ]
    if others:
        kinds = ", ".join(sorted({str(state[name].dtype) for name in others}))
        raise CheckpointError(
            f"{source} holds numbers of another kind ({kinds}) than the model's weights in"
            f" {grouped(others)}: it may be quantized; name the file that it was made from."
        )


def is_optional(name: str) -> bool:
    """Whether a weight may be missing or left over: nothing reads it, or the config has it."""
    return bool(_OPTIONAL.search(name))


def counted(missing: list[str], left_over: list[str]) -> list[str]:
    """``missing 3: head (bias, weight), norm (bias)`` and ``left over ...``, if there are any."""
    both = {"missing": missing, "left over": left_over}
    return [f"{words} {len(keys)}: {grouped(keys)}" for words, keys in both.items() if keys]


def grouped(keys: list[str]) -> str:
    """Names gathered by the module they belong to: ``neck.0 (bias, weight), head (bias)``."""
    groups: dict[str, list[str]] = {}
    for key in keys:
        module, _, name = key.rpartition(".")
        groups.setdefault(module, []).append(name)
    return _truncated(
        [
            f"{module} ({', '.join(names)})" if module else ", ".join(names)
            for module, names in groups.items()
        ]
    )


def _truncated(items: list[str], limit: int = 12) -> str:
    more = f" and {len(items) - limit} more" if len(items) > limit else ""
    return ", ".join(map(shown, items[:limit])) + more


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"
