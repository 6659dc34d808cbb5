"""The class names that a detector was trained with: in its checkpoint, or in a card beside it.

A card beside a file is a small JSON file, ``model_final.json`` for ``model_final.pth``. The file of
a Detectron2 model has one, because the file itself stays Detectron2's. It is the whole model card,
see :mod:`.card`, or, of earlier versions, only ``{"classes": [...]}``.
"""

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES

from ..hub import WEIGHTS, class_names
from .files import State, atomic_write, local_file
from .heads import count_classes
from .huggingface import is_of_authors
from .published import origin_of

_log = logging.getLogger(__name__)

CLASSES = "classes"  # where this project's own checkpoints have them
# Addresses in the model zoo of detectors that were trained on COCO's 80 classes.
_OF_COCO = tuple(
    f"{zoo}COCO-{task}/"
    for zoo in ("model_zoo://trained/", "detectron2://")
    for task in ("Detection", "InstanceSegmentation")
)
_LARGEST_CARD = 2**24  # bytes; a JSON file above that is something else


class AssumedClasses(tuple[str, ...]):
    """COCO's names for a published detector, whose file has no names.

    Their spelling is one of several, so that another list means other classes only where most of it
    differs.
    """


def classes_in(data: Mapping[str, Any], path: str) -> tuple[str, ...]:
    """The class names that a file, the card beside it, or the ``config.json`` of a folder of the
    package transformers states in order; empty without any.

    Args:
        data: what ``read_checkpoint`` returned.
        path: where it was read from.
    """
    beside = (content_beside(path) or {}).get(CLASSES)
    return _names(data.get(CLASSES)) or _names(beside) or _names_in_folder(path)


def assumed_classes(state: State, fitted: State, path: str) -> tuple[str, ...]:
    """COCO's 80 names for a published detector of 80 classes, and for one of Detectron2's model
    zoo; empty for any other.

    Args:
        state: the weights by the names in the file.
        fitted: the same under the names of a model.
        path: where the file was read from.
    """
    published = origin_of(state) is not None or is_of_authors(state)
    published = published and count_classes(fitted) == 80
    if not published and not path.startswith(_OF_COCO):
        return ()
    return AssumedClasses(entry["name"] for entry in COCO_CATEGORIES if entry["isthing"])


def write_card(path: str, content: Mapping[str, Any] | None) -> None:
    """Write the card of the checkpoint ``path``, or without content delete that of an earlier
    one.
    """
    card = _card(path)
    if not content:
        card.unlink(missing_ok=True)
        return
    text = json.dumps(content, ensure_ascii=False, indent=1)
    atomic_write(str(card), lambda stream: stream.write(text.encode()))


def content_beside(path: str) -> dict[str, Any] | None:
    """What the card beside a checkpoint says; None where there is none that can be read.

    Raises:
        CheckpointError: there is no checkpoint ``path``.
    """
    card = _card(local_file(path))
    if not card.is_file() or os.path.getsize(card) > _LARGEST_CARD:
        return None
    try:
        content = json.loads(card.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        _log.warning("%s cannot be read, so the names of the classes are not compared.", card)
        return None
    return content if isinstance(content, dict) else None


def _names_in_folder(path: str) -> tuple[str, ...]:
    file = Path(local_file(path))
    return class_names(file.parent) if WEIGHTS.fullmatch(file.name) else ()


def _card(file: str) -> Path:
    return Path(file).with_suffix(".json")


def _names(value: Any) -> tuple[str, ...]:
    """A list of names as a tuple; empty where it is anything else."""
    is_list = isinstance(value, list | tuple)
    return tuple(value) if is_list and all(isinstance(name, str) for name in value) else ()
