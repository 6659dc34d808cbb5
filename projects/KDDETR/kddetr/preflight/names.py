"""The classes of the data and those of the teacher side by side."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ..checkpoint import classes_in, read_checkpoint
from ..data import class_names, is_left_out
from ..engine import build
from ..engine.config.calls import located, walk
from ..errors import did_you_mean
from ..teachers import RecordedTeacher, Vocabulary

MOST_RECORDS = 5000  # images whose boxes are counted


@dataclass(frozen=True)
class LabelCounts:
    """What is labelled in the training data.

    Attributes:
        images: how many training images are labelled, of all of them.
        boxes: of each class, by its index, in the images that were counted.
    """

    images: int
    boxes: Mapping[int, int]


@dataclass(frozen=True)
class Vocabularies:
    """Two lists of class names.

    Attributes:
        data, teacher: the names in order; empty where they are not known.
        near: for a class of the data that the teacher does not know, a hint at the name that it may
            have there, ``did you mean cat?``.
        covered: the share, from 0 to 1, of the boxes of the data whose class the teacher knows;
            None without boxes.
    """

    data: Sequence[str]
    teacher: Sequence[str]
    near: Mapping[str, str]
    covered: float | None

    @property
    def known(self) -> list[str]:
        """The classes of the data that the teacher knows."""
        return [name for name in self.data if name in self.teacher]

    @property
    def unknown(self) -> list[str]:
        """The classes of the data that it does not."""
        return [name for name in self.data if name not in self.teacher]


def compare_names(
    data: Sequence[str], teacher: Sequence[str], boxes: Mapping[int, int]
) -> Vocabularies:
    """The two lists side by side; ``boxes`` counts those of each class of the data."""
    free = [name for name in teacher if name not in data]  # for a class in another spelling
    hints = {
        name: did_you_mean(name, free, otherwise="")
        for name in data
        if teacher and name not in teacher
    }
    near = {name: hint for name, hint in hints.items() if hint}
    total = sum(boxes.values())
    known = sum(n for k, n in boxes.items() if k < len(data) and data[k] in teacher)
    return Vocabularies(data, teacher, near, known / total if total and teacher else None)


def known_words(names: Vocabularies) -> str:
    """How many of the classes of the data the teacher knows, and which it does not, in words."""
    words = f"The teacher knows {len(names.known)} of the {len(names.data)} classes of the data"
    if names.covered is not None:
        words += f", with {100 * names.covered:.0f} % of the boxes"
    return f"{words}, and not {unknown_words(names)}" if names.unknown else words


def unknown_words(names: Vocabularies) -> str:
    """The first of the classes that the teacher does not know: ``'cats' (did you mean cat?)``."""
    shown = [
        repr(name) + (f" ({names.near[name]})" if name in names.near else "")
        for name in names.unknown[:5]
    ]
    more = len(names.unknown) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def teacher_names(cfg: DictConfig) -> list[str]:
    """The class names that a config's teacher was trained with, before it is built; empty where
    neither its Vocabulary, its record nor its file says them.
    """
    node = cfg.model.get("teacher")
    tree = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else {}
    calls = [value for _, value in [("", tree), *walk(tree)] if isinstance(value, Mapping)]
    for call in calls:
        target = call.get("_target_")  # which may be a call that makes the callable
        kind = None if target is None or isinstance(target, Mapping) else located(target)
        if kind is Vocabulary:
            return class_names(build(call["classes"]))
        if kind is RecordedTeacher:
            return list(build(call).trained_classes)
        if file := call.get("checkpoint"):
            return list(classes_in(read_checkpoint(file), file))
    return []


def count_labels(records: Sequence[dict[str, Any]]) -> LabelCounts:
    """What is labelled in dataset dicts; the boxes of at most ``MOST_RECORDS``, evenly spread."""
    step = max(1, len(records) // MOST_RECORDS)
    seen = [records[i] for i in islice(range(0, len(records), step), MOST_RECORDS)]
    labelled = [x["annotations"] for x in seen if "annotations" in x]
    images = len(records) * len(labelled) // len(seen) if seen else 0
    return LabelCounts(images, Counter(_classes(labelled)))


def _classes(images: Iterable[Sequence[dict]]) -> Iterable[int]:
    return (note["category_id"] for notes in images for note in notes if not is_left_out(note))
