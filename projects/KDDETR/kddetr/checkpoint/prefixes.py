"""Prefixes of names of weights that training wrappers leave in a file, and that a model lacks."""

import logging
import re
from collections.abc import Callable, Iterator

from .files import State, shown

_log = logging.getLogger(__name__)

# What torch.compile, FSDP and activation checkpointing insert in front of what they wrap.
_INSERTED = re.compile(
    r"(?:(?<=\.)|^)(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\."
)
# The part of a training program that is the detector, and what may lie beside it.
_DETECTOR = ("student", "modelStudent", "architecture", "model", "detector", "module")
_BESIDE = {"teacher", "modelTeacher", "projection", "sampler", "query_placement", "loss"}
_BESIDE |= {"criterion", "ema", "model_ema", "ema_model", "model_teacher", "teacher_model"}


def without_prefix(
    state: State,
    fits: Callable[[State], int],
    source: str,
    say: Callable[[str], None] = _log.info,
) -> State:
    """Weights without the prefixes with which their names do not fit, said in a line.

    Removed are ``module.``, ``model.`` or any other beginning that all names have, and words of
    torch.compile and FSDP anywhere. Of a whole distiller (``student.``, ``teacher.``) the student
    is taken. Where the names fit as they are, or fit with no prefix removed, nothing is changed.

    Args:
        state: weights by the names in the file.
        fits: how many of these names the model has, or 1 where it knows them under another name.
        source: the file's name, for messages.
        say: is given the line.
    """
    best, most, line = state, fits(state), ""
    for candidate, words in _candidates(state):
        if (count := fits(candidate)) > most:
            best, most, line = candidate, count, words
    if line:
        say(f"{source}: {line}.")
    return best


def _candidates(state: State) -> Iterator[tuple[State, str]]:
    """The weights under shorter and shorter names, and what was removed."""
    inserted, removed, left_out = "", "", ""
    current = {_INSERTED.sub("", name): value for name, value in state.items()}
    if current.keys() != state.keys():
        if len(current) < len(state):
            return  # two names would become one
        words = {word for name in state for word in _INSERTED.findall(name)}
        inserted = " and ".join(sorted(words))
        yield current, _line(inserted, left_out)
    for _ in range(6):
        tops = {name.partition(".")[0] for name in current}
        top = next((one for one in _DETECTOR if one in tops), "") if len(tops) > 1 else min(tops)
        beside = tops - {top}
        if not top or not beside <= _BESIDE:
            return
        inside = {k.partition(".")[2]: v for k, v in current.items() if k.startswith(f"{top}.")}
        if len(inside) + sum(name.partition(".")[0] in beside for name in current) < len(current):
            return  # a weight is called like the prefix itself
        if beside:
            left_out = f", and {shown(' and '.join(sorted(beside)))} beside it left out"
        removed += f"{top}."
        current = inside
        yield current, _line(" and ".join(filter(None, (removed, inserted))), left_out)


def _line(removed: str, left_out: str) -> str:
    return f"the prefix {shown(removed)} is removed from the names of its weights{left_out}"
