"""A wrapper that selects a teacher's classes by name.

A class index means something only together with the list of class names that it points into. Two
data sets with equally many classes may list them in different orders; by index alone, a student
would learn to call a cat a dog.

Shape letters: L decoder layers, B images, N queries, K wanted classes.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from ..data.class_differences import class_difference, listed
from ..data.class_names import Classes, class_names
from ..errors import UsageError, did_you_mean
from ..structures import Predictions, Queries, QueryableDetector
from .wrapper import TeacherWrapper


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
        partial: accept wanted classes that the detector does not have. Its predictions are then for
            the others alone, see :attr:`~kddetr.structures.Predictions.classes`: a student learns
            the missing classes from labels, and is not told that their objects are background.

    Attributes:
        classes, wanted: the names, as lists.

    Raises:
        UsageError: the detector does not have a wanted class, or with ``partial`` none of them, a
            class is listed twice, a list is empty, ``classes`` has another length than the
            detector's list or another order than in the detector's file, or a string is neither a
            data set nor a file.
        DatasetError: the data set or the file cannot be read.
    """

    def __init__(
        self,
        *,
        detector: QueryableDetector,
        classes: Classes,
        wanted: Classes,
        partial: bool = False,
    ) -> None:
        super().__init__(detector)
        self.classes = _distinct("classes", classes)
        self.wanted = _distinct("wanted", wanted)
        if len(self.classes) != detector.num_classes:
            raise UsageError(
                f"The {type(detector).__name__} has {detector.num_classes} classes, but the"
                f" Vocabulary's classes are {listed(self.classes)}: give the list of classes that"
                " the detector was trained with."
            )
        self._check_order(detector)
        order = {name: i for i, name in enumerate(self.classes)}
        missing = [name for name in self.wanted if name not in order]
        if missing and not (partial and len(missing) < len(self.wanted)):
            raise UsageError(
                f"The {type(detector).__name__} has no class {_missing(missing, self.classes)}; its"
                f" classes are {listed(self.classes)}: spell the same class alike in both lists,"
                " and leave out of wanted what the detector cannot detect, or set partial=True to"
                " learn it from labels alone."
            )
        known = [(i, order[name]) for i, name in enumerate(self.wanted) if name in order]
        places, rows = torch.tensor(known).unbind(1)
        self.register_buffer("rows", rows.contiguous(), persistent=False)
        # The places of the known classes among the wanted ones, where these are not all.
        self.register_buffer("places", places.contiguous() if missing else None, persistent=False)

    def _check_order(self, detector: QueryableDetector) -> None:
        """Refuse ``classes`` in which a name has another place than in the detector's file.

        Names that the file does not have are accepted: they are another spelling of its names.
        """
        trained = list(trained_classes(detector))
        spelled = [
            there if there not in self.classes and here not in trained else here
            for there, here in zip(trained, self.classes, strict=False)
        ]
        if difference := class_difference(trained, spelled, "its file", "that list"):
            raise UsageError(
                f"The Vocabulary's classes are not those that the {type(detector).__name__} was"
                f" trained with: {difference}; give the file's classes in their order, each in the"
                " data's spelling."
            )

    @property
    def num_classes(self) -> int:
        """The number of wanted classes K."""
        return len(self.wanted)

    def decode(
        self, memory: Any, queries: Queries, layers: Sequence[int] | None = None
    ) -> Predictions:
        """The detector's predictions for the wanted classes, (L, B, N, K); where it lacks some of
        them, for the others.

        Where the detector predicts a box for every class, the box of a query is that of its most
        likely *wanted* class.
        """
        answers = super().decode(memory, queries, layers).with_classes(self.rows)
        return replace(answers, classes=self.places)


def trained_classes(detector: Any) -> Sequence[str]:
    """The class names in the file that a detector, or the one inside of wrappers, was loaded from;
    empty where the file has none. See :func:`kddetr.checkpoint.load_pretrained`.
    """
    while not hasattr(detector, "trained_classes") and hasattr(detector, "detector"):
        detector = detector.detector
    return getattr(detector, "trained_classes", ())


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
