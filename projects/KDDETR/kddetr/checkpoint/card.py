"""The model card of a checkpoint: all that is needed to build the detector and to feed it images.

It is a dictionary of plain values under the key ``card`` of a checkpoint. The file of a Detectron2
model stays Detectron2's own, so that its card is a JSON file beside it, see :mod:`.classes`.
"""

from collections.abc import Mapping
from typing import Any

from ..errors import CheckpointError
from .classes import content_beside
from .described import DETECTOR_PACKAGES, IMAGE_PACKAGES, TARGET, check_calls
from .files import read_checkpoint

CARD, FORMAT = "card", 1
_OR_NONE = dict | None
# The entries of a card and their types; docs/predict.md says what is in them.
_ENTRIES = {
    "model": _OR_NONE,
    "input": _OR_NONE,
    "classes": list,
    "trained": dict,
    "teacher": _OR_NONE,
    "results": dict,
}


def read_card(path: str) -> dict[str, Any] | None:
    """The card of a checkpoint, or None where it has none.

    Nothing is built or run; see :func:`detector_in` for the detector.

    Args:
        path: a file or an address, see :func:`~kddetr.checkpoint.read_checkpoint`.

    Returns:
        A dictionary with the entries ``format``, ``model`` (the detector's config as plain
        containers, or None where it cannot be written as such), ``input`` (how an image is
        prepared, None where it is not known), ``classes`` (their names in order), ``trained``,
        ``teacher`` (None without one) and ``results`` (of the evaluation of these very weights;
        empty without one).

    Raises:
        CheckpointError: the file cannot be read, or the card is damaged or of a later version.
    """
    return card_in(read_checkpoint(path), path)


def card_in(data: Mapping[str, Any], path: str) -> dict[str, Any] | None:
    """The card in what ``read_checkpoint`` returned for ``path``, or beside it; see
    :func:`read_card`.
    """
    card = data.get(CARD) or content_beside(path)
    if not isinstance(card, dict) or "format" not in card:
        return None  # an earlier card, which holds the names of the classes only
    if card["format"] != FORMAT:
        raise CheckpointError(
            f"The card of {path} has the format {card['format']!r}, and this version of kddetr"
            f" reads format {FORMAT}: update kddetr, or give the detector's config."
        )
    wrong = [key for key, kind in _ENTRIES.items() if not isinstance(card.get(key), kind)]
    if wrong := wrong or _damaged(card):
        raise CheckpointError(
            f"The card of {path} is damaged in {', '.join(wrong)}: save the checkpoint again, or"
            " give the detector's config."
        )
    return card


def _damaged(card: Mapping[str, Any]) -> list[str]:
    """The entries of a card that hold something else than they should."""
    prepared = {"augmentations": []} if card["input"] is None else card["input"]
    steps = prepared.get("augmentations")
    numbers = [prepared.get(key) or [] for key in ("pixel_mean", "pixel_std")]
    sides = [[prepared.get(key) or 0] for key in ("min_size", "max_size")]
    whole = {
        "model": card["model"] is None or TARGET in card["model"],
        "input": isinstance(steps, list)
        and all(isinstance(step, dict) and TARGET in step for step in steps)
        and all(map(_are_numbers, numbers + sides)),
        "classes": all(isinstance(name, str) for name in card["classes"]),
        "results": _are_numbers([*card["results"].values()]),
    }
    return [key for key, is_whole in whole.items() if not is_whole]


def _are_numbers(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(value, int | float) for value in values)


def detector_in(card: Mapping[str, Any], path: str) -> dict[str, Any]:
    """The config of the detector in a card, which may be built: it calls only what detectors are
    made of.

    Args:
        card: see :func:`read_card`.
        path: of the checkpoint, for messages.

    Returns:
        Plain containers for ``detectron2.config.instantiate`` or ``kddetr.engine.build``.

    Raises:
        CheckpointError: the card does not describe the detector, or calls something else.
    """
    return check_calls(_known(card, "model", path, "the detector"), DETECTOR_PACKAGES, path)


def input_in(card: Mapping[str, Any], path: str) -> dict[str, Any]:
    """How a card says that an image is prepared, with augmentations that may be built.

    Raises:
        CheckpointError: the card does not say it, or calls something else.
    """
    found = _known(card, "input", path, "how an image is resized")
    return check_calls(found, IMAGE_PACKAGES, path)


def _known(card: Mapping[str, Any], key: str, path: str, what: str) -> dict[str, Any]:
    if card[key] is None:
        raise CheckpointError(
            f"The card of {path} does not describe {what}, because the config that it was trained"
            " with has objects of its own: give that config."
        )
    return card[key]
