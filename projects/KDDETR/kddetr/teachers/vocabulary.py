"""A wrapper that selects a teacher's classes by name.

A class index means something only together with the list of class names that it points into. Two
data sets with equally many classes may list them in different orders; by index alone, a student
would learn to call a cat a dog.

Shape letters: L decoder layers, B images, N queries, K wanted classes.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.data import DatasetCatalog, MetadataCatalog

from ..data.coco import coco_records, read_coco_json
from ..errors import UsageError, did_you_mean
from ..structures import Predictions, Queries, QueryableDetector
from .wrapper import TeacherWrapper

Classes = str | Sequence[str]


class Vocabulary(TeacherWrapper):
    """A detector that predicts only the wanted ones of its classes, in their order.

    Each of the two class lists is a list of names, the name of a registered data set, or the path
    of a COCO-format JSON file, whose categories are taken in the order of their ids. Names must
    match exactly, upper and lower case included.

    Args:
        detector: a frozen detector, or another wrapper around one, such as
            :class:`~kddetr.teachers.CachedEncoder`.
        classes: all classes of the detector, in the order of its logits. Where the student's data
            spells a class differently, give a list with the student's spelling here.
        wanted: the classes of the student.

    Attributes:
        classes, wanted: the names, as lists.

    Raises:
        UsageError: the detector does not have a wanted class, a class is listed twice, a list is
            empty, ``classes`` has another length than the detector's list, or a string is neither
            a data set nor a file.
        DatasetError: the data set or the file cannot be read.
    """

    def __init__(self, *, detector: QueryableDetector, classes: Classes, wanted: Classes) -> None:
        super().__init__(detector)
        self.classes = _distinct("classes", classes)
        self.wanted = _distinct("wanted", wanted)
        if len(self.classes) != detector.num_classes:
            raise UsageError(
                f"The {type(detector).__name__} has {detector.num_classes} classes, but the"
                f" Vocabulary's classes are {listed(self.classes)}: give the list of classes that"
                " the detector was trained with."
            )
        order = {name: i for i, name in enumerate(self.classes)}
        if missing := [name for name in self.wanted if name not in order]:
            raise UsageError(
                f"The {type(detector).__name__} has no class {_missing(missing, self.classes)}; its"
                f" classes are {listed(self.classes)} and the wanted ones are"
                f" {listed(self.wanted)}: spell the same class alike in both lists, and leave out"
                " of wanted what the detector cannot detect."
            )
        rows = torch.tensor([order[name] for name in self.wanted])
        self.register_buffer("rows", rows, persistent=False)

    @property
    def num_classes(self) -> int:
        """The number of wanted classes K."""
        return len(self.wanted)

    def decode(self, memory: Any, queries: Queries) -> Predictions:
        """The detector's predictions for the wanted classes, (L, B, N, K).

        Where the detector predicts a box for every class, the box of a query is that of its most
        likely *wanted* class.
        """
        answers = self.detector.decode(memory, queries)
        logits = answers.logits.index_select(-1, self.rows)
        if answers.class_boxes is None:
            return Predictions(logits, answers.boxes)
        boxes = answers.class_boxes.index_select(-2, self.rows)
        return Predictions(logits, answers.boxes, boxes).of_classes(logits.argmax(-1))


def class_names(source: Classes) -> list[str]:
    """The class names of a list, a registered data set or a COCO-format JSON file.

    Raises:
        UsageError: ``source`` is none of these, or the data set has no names for its classes.
        DatasetError: the data set or the file cannot be read.
    """
    if not isinstance(source, str):
        return [str(name) for name in source]
    if source in DatasetCatalog.list():
        names = MetadataCatalog.get(source).get("thing_classes")
        if not names:
            DatasetCatalog.get(source)  # reading a COCO file registers its class names
            names = MetadataCatalog.get(source).get("thing_classes")
        if not names:
            raise UsageError(
                f"The data set {source!r} has no names for its classes: give a list of the names"
                " instead."
            )
        return list(names)
    path = Path(source).expanduser()
    if path.suffix == ".json" or path.is_file():
        categories = read_coco_json(path)["categories"]
        document = {"images": [], "categories": categories}
        return coco_records(document, json_file=source, image_root="")[1]
    other = "or give a list of the class names."
    hint = did_you_mean(source, DatasetCatalog.list(), otherwise=other, count=3)
    raise UsageError(
        f"{source!r} is neither a registered data set nor a COCO-format JSON file; {hint}"
    )


def listed(names: Sequence[str]) -> str:
    """How many names there are, and which: ``3 (cat, dog, horse)``; of more than 100 the first
    50.
    """
    some = list(names) if len(names) <= 100 else [*names[:50], f"and {len(names) - 50} more"]
    return f"{len(names)} ({', '.join(some)})"


def _distinct(argument: str, source: Classes) -> list[str]:
    names = class_names(source)
    if not names:
        raise UsageError(f"The Vocabulary's {argument} are an empty list: name at least one class.")
    twice = list(dict.fromkeys(name for name in names if names.count(name) > 1))
    if twice:
        raise UsageError(
            f"The Vocabulary's {argument} list {', '.join(map(repr, twice[:8]))} more than once:"
            " give every class a name of its own."
        )
    return names


def _missing(missing: Sequence[str], known: Sequence[str]) -> str:
    """At most ten names with hints: ``'cats' (did you mean cat?) and no class 'zebra'``."""
    words = []
    for name in missing[:10]:
        hint = did_you_mean(name, known, otherwise="")
        words.append(repr(name) + (f" ({hint})" if hint else ""))
    more = len(missing) - len(words)
    return " and no class ".join(words) + (f" and not {more} other wanted ones" if more else "")
