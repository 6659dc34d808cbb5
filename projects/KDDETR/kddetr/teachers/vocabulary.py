"""A detector of other classes than its student's: its answers, class by class, found by name.

A number means nothing without the list that it is counted in. Two lists of the same length may
number their classes differently, and a student would learn to call a cat a dog.
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

__all__ = ["Vocabulary", "class_names", "listed"]

Classes = str | Sequence[str]


class Vocabulary(TeacherWrapper):
    """Answers like ``detector``, for the wanted classes only and in their order.

    Names are compared as they are written. Each of the two lists is a list of names, the name of a
    registered data set, or the path of a COCO-format JSON file, whose categories count in the order
    of their ids.

    Args:
        detector: the frozen detector, or what already stands around it
            (:class:`kddetr.detectors.CachedEncoder`).
        classes: what it knows, in the order of its logits. Where its data spells a class
            differently, give a list with the wanted spelling here.
        wanted: those to answer for.

    Attributes:
        classes, wanted: the names, as lists.

    Raises:
        UsageError: a wanted class that the detector does not know, a class that is listed twice,
            an empty list, a list of another length than the detector's, or a text that is neither a
            data set nor a file.
        DatasetError: the data set or the file cannot be read.
    """

    def __init__(self, *, detector: QueryableDetector, classes: Classes, wanted: Classes) -> None:
        super().__init__(detector)
        self.classes = _distinct("classes", classes)
        self.wanted = _distinct("wanted", wanted)
        if len(self.classes) != detector.num_classes:
            raise UsageError(
                f"The {type(detector).__name__} has {detector.num_classes} classes, and the"
                f" Vocabulary's classes name {listed(self.classes)}: give the list that the"
                " detector was trained with."
            )
        order = {name: i for i, name in enumerate(self.classes)}
        if missing := [name for name in self.wanted if name not in order]:
            raise UsageError(
                f"The {type(detector).__name__} knows no {_missing(missing, self.classes)}; it"
                f" knows {listed(self.classes)}, and wanted are {listed(self.wanted)}: spell its"
                " classes as the wanted ones, or leave out what it cannot teach."
            )
        rows = torch.tensor([order[name] for name in self.wanted])
        self.register_buffer("rows", rows, persistent=False)

    @property
    def num_classes(self) -> int:
        return len(self.wanted)

    def decode(self, memory: Any, queries: Queries) -> Predictions:
        """The detector's answers, (L, B, N, wanted).

        Of a box for every class, that of the likeliest *wanted* class is the query's.
        """
        answers = self.detector.decode(memory, queries)
        logits = answers.logits.index_select(-1, self.rows)
        if answers.class_boxes is None:
            return Predictions(logits, answers.boxes)
        boxes = answers.class_boxes.index_select(-2, self.rows)
        return Predictions(logits, answers.boxes, boxes).of_classes(logits.argmax(-1))


def class_names(source: Classes) -> list[str]:
    """The names that a list, a registered data set or a COCO-format JSON file has for its classes.

    Raises:
        UsageError: it is neither, or the data set has no names for its classes.
        DatasetError: the data set or the file cannot be read.
    """
    if not isinstance(source, str):
        return [str(name) for name in source]
    if source in DatasetCatalog.list():
        names = MetadataCatalog.get(source).get("thing_classes")
        if not names:
            DatasetCatalog.get(source)  # a COCO file's are known once it is read
            names = MetadataCatalog.get(source).get("thing_classes")
        if not names:
            raise UsageError(
                f"The data set {source!r} has no names for its classes: list them instead."
            )
        return list(names)
    path = Path(source).expanduser()
    if path.suffix == ".json" or path.is_file():
        categories = read_coco_json(path)["categories"]
        document = {"images": [], "categories": categories}
        return coco_records(document, json_file=source, image_root="")[1]
    other = "or list the names of the classes."
    hint = did_you_mean(source, DatasetCatalog.list(), otherwise=other, count=3)
    raise UsageError(
        f"{source!r} is neither a registered data set nor a COCO-format JSON file; {hint}"
    )


def listed(names: Sequence[str]) -> str:
    """`3 (cat, dog, horse)`; of more than 100 names the first 50."""
    some = list(names) if len(names) <= 100 else [*names[:50], f"and {len(names) - 50} more"]
    return f"{len(names)} ({', '.join(some)})"


def _distinct(argument: str, source: Classes) -> list[str]:
    names = class_names(source)
    if not names:
        raise UsageError(f"The Vocabulary's {argument} are an empty list: name at least one class.")
    twice = list(dict.fromkeys(name for name in names if names.count(name) > 1))
    if twice:
        raise UsageError(
            f"The Vocabulary's {argument} name {', '.join(map(repr, twice[:8]))} more than once:"
            " every class needs a name of its own."
        )
    return names


def _missing(missing: Sequence[str], known: Sequence[str]) -> str:
    """`'cats' (did you mean cat?) and no 'zebra'`, at most ten of them."""
    words = []
    for name in missing[:10]:
        hint = did_you_mean(name, known, otherwise="")
        words.append(repr(name) + (f" ({hint})" if hint else ""))
    more = len(missing) - len(words)
    return " and no ".join(words) + (f" and not {more} others of the wanted" if more else "")
