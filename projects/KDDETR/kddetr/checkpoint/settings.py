"""Settings that change a detector's predictions and that no weight's shape shows.

With another temperature of the positional embedding every weight of a file fits, and every box
moves. The settings that a file needs are known from its origin, from its name or from what is saved
beside its weights, and compared with the model's.
"""

import argparse
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import CheckpointError
from .origins import Origin, Recipe

_log = logging.getLogger(__name__)

SETTINGS = "settings"  # where this project's own checkpoints have them
# Options of the original projects' training scripts, which their files hold as ``args``.
_OPTIONS = (
    ("pe_temperatureH", "temperature"),
    ("pe_temperatureW", "temperature"),
    ("nheads", "num_heads"),
    ("dilation", "backbone.dilation"),
)

Settings = Mapping[str, float]


def stated_settings(data: Mapping[str, Any]) -> list[dict[str, float]]:
    """The settings that a file states beside its weights; several where it may need either."""
    if SETTINGS in data:
        several = data[SETTINGS] if isinstance(data[SETTINGS], list) else [data[SETTINGS]]
        numbers = (_numbers(settings) for settings in several if isinstance(settings, dict))
    else:
        args = data.get("args")
        options = _numbers(vars(args) if isinstance(args, argparse.Namespace) else args)
        numbers = [{ours: options[key] for key, ours in _OPTIONS if key in options}]
    return [settings for settings in numbers if settings]


def recipes_of(origin: Origin | None, stated: Sequence[Settings], source: str) -> list[Recipe]:
    """The settings that a file's weights may need, the likeliest first; empty: nothing is known.

    A file without an ``origin`` is one of this project's own. The last part of the path ``source``
    may contain a recipe's mark.
    """
    if origin is None:
        return [Recipe(settings) for settings in stated]
    marked = [recipe for recipe in origin.recipes if _is_marked(recipe, source)]
    found = []
    for recipe in marked or origin.recipes:
        settings = {**recipe.settings, **(stated[0] if stated else {})}
        if all(settings != other.settings for other in found):
            found.append(Recipe(settings, recipe.mark))
    return found


def check_settings(
    own: Settings, recipes: Sequence[Recipe], heads: str, source: str, what: str
) -> None:
    """Refuse a model whose settings are none that the weights of a file were trained with.

    Args:
        own: the model's.
        recipes: see :func:`recipes_of`.
        heads: an override that the heads in the file need besides; empty: none.
        source, what: the file's name, and what is in it, for messages.

    Raises:
        CheckpointError: the message has all overrides to add.
    """
    fitting = next((recipe for recipe in recipes if not _changes(own, recipe)), None)
    if fitting is not None and not heads:
        if fitting is not recipes[0] and fitting.mark and not _is_marked(fitting, source):
            _log.warning(
                "%s is %s, of which there are weights for several settings: the model has %s (files"
                " named %s); for other files set %s.",
                *(source, what, overrides(_changes(recipes[0].settings, fitting))),
                *(fitting.mark, overrides(_changes(own, recipes[0]))),
            )
        return
    same = [recipe for recipe in recipes if "backbone.dilation" not in _changes(own, recipe)]
    needed = [
        f"{overrides(_changes(own, recipe))} {heads}".strip() for recipe in same or recipes
    ] or [heads]
    if needed != [""]:
        marks = [recipe.mark for recipe in same or recipes]
        other = f", or {needed[1]} for a file named {marks[1]}" if len(set(marks)) > 1 else ""
        raise CheckpointError(
            f"{source} is {what}, whose weights need other settings than the model has; set"
            f" {needed[0]}{other}."
        )


def overrides(settings: Settings) -> str:
    """As they are written on a command line: ``model.temperature=20 model.offset=0``."""
    return " ".join(
        f"model.{name}={value if isinstance(value, bool) else format(value, 'g')}"
        for name, value in settings.items()
    )


def _changes(own: Settings, recipe: Recipe) -> dict[str, float]:
    """What a recipe has otherwise than a model."""
    return {
        name: value
        for name, value in recipe.settings.items()
        if name in own and not math.isclose(own[name], value)
    }


def _is_marked(recipe: Recipe, source: str) -> bool:
    return bool(recipe.mark) and recipe.mark in Path(source).name.lower()


def _numbers(options: Any) -> dict[str, float]:
    """The entries of a dictionary that are numbers, truth values included."""
    entries = options.items() if isinstance(options, dict) else ()
    return {
        name: value
        for name, value in entries
        if isinstance(name, str) and isinstance(value, int | float) and abs(value) < 1e9
    }
