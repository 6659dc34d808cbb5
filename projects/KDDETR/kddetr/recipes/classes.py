"""The classes of the data matched with those of a teacher, by name."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..data import class_names
from ..data.class_differences import listed
from ..data.coco import read_coco_json
from ..errors import UsageError, did_you_mean

_UNUSED = "(unused {})"  # a row of a class head that no category of the data has


@dataclass(frozen=True)
class Match:
    """Which of the teacher's classes are those of the data.

    Attributes:
        teacher: all classes of the teacher, in the order of its logits, spelled as in the data.
        data: the classes of the data, in their order.
        renamed: (in the data, in the teacher) of classes that are spelled differently.
        unknown: classes of the data that the teacher does not have.
    """

    teacher: list[str]
    data: list[str]
    renamed: list[tuple[str, str]]
    unknown: list[str]

    @property
    def known(self) -> list[str]:
        """The classes of the data that the teacher has."""
        return [name for name in self.data if name not in self.unknown]

    def describe(self, labeled: bool = True) -> str:
        """Sentences about what matches and what does not.

        Args:
            labeled: whether there are labels to learn from.
        """
        if self.teacher == self.data and not self.renamed:
            return f"the teacher has the same {len(self.data)}"
        words = f"{len(self.known)} of {len(self.data)} are among the teacher's {len(self.teacher)}"
        if self.renamed:
            pairs = [f"{ours} = {theirs}" for ours, theirs in self.renamed]
            words += f"; taken as the same: {listed(pairs)}"
        if self.unknown:
            how = "learned from labels alone" if labeled else "without labels never learned"
            words += f"; {how}: {listed(self.unknown)}"
        return words


def match_classes(
    data: Sequence[str], teacher: Sequence[str], same: Mapping[str, str] | None = None
) -> Match:
    """Match class names.

    Names that differ only in capitals, spaces, hyphens and underscores are the same class.

    Args:
        data: the classes of the data.
        teacher: those of the teacher, in the order of its logits.
        same: further pairs, of a name in the data and a name of the teacher.

    Raises:
        UsageError: no class is shared, or ``same`` names one that does not exist, or one of the
            teacher twice.
    """
    same = dict(same or {})
    for ours, theirs in same.items():
        for name, names, whose in ((ours, data, "data"), (theirs, teacher, "teacher")):
            if name not in names:
                hint = did_you_mean(name, names)
                raise UsageError(f"--same-class: the {whose} has no class {name!r}; {hint}")
    if twice := [name for name, count in Counter(same.values()).items() if count > 1]:
        raise UsageError(
            f"--same-class: {twice[0]!r} of the teacher is named for several classes of the data:"
            " keep one of these pairs."
        )
    found: dict[str, str] = {}
    # What was said comes first, then names that are equal, then those that are nearly so.
    for pairs in (same, {name: name for name in teacher}, _nearly_equal(data, teacher)):
        for name in data:
            partner = pairs.get(name)
            if partner and name not in found and partner not in found.values():
                found[name] = partner
    if not found:
        raise UsageError(
            f"The teacher knows none of the classes of the data, {listed(data)}; its own are"
            f" {listed(teacher)}. Name pairs that are the same with --same-class DATA=TEACHER, or"
            " take another teacher."
        )
    spelled = {theirs: ours for ours, theirs in found.items()}
    renamed = [(ours, theirs) for ours, theirs in found.items() if ours != theirs]
    return Match(
        teacher=[spelled.get(name, _apart(name, data)) for name in teacher],
        data=list(data),
        renamed=renamed,
        unknown=[name for name in data if name not in found],
    )


def _nearly_equal(data: Sequence[str], teacher: Sequence[str]) -> dict[str, str]:
    """Pairs of names that differ only in capitals and separators, where each is the only such name
    on its side.
    """
    ours, theirs = (Counter(map(_plain, names)) for names in (data, teacher))
    by_plain = {_plain(name): name for name in teacher if theirs[_plain(name)] == 1}
    return {
        name: by_plain[_plain(name)]
        for name in data
        if ours[_plain(name)] == 1 and _plain(name) in by_plain
    }


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", "", name).casefold()


def _apart(name: str, data: Sequence[str]) -> str:
    """A class of the teacher that is none of the data, even where its name is one of them."""
    return f"{name} (of the teacher)" if name in data else name


def teacher_classes(source: str, count: int, data: Sequence[str] = ()) -> list[str]:
    """The class names of a teacher whose file does not say them.

    Args:
        source: names separated by commas, a COCO JSON file, the name of a registered data set, or
            ``data`` for the classes of the data in their order.
        count: how many classes the teacher has.
        data: the classes of the data.

    Returns:
        One name for each row of its class head. Of a file with fewer categories, whose largest id
        is the last row, the rows are the ids, as in the code of DETR's authors.

    Raises:
        UsageError: there are more or fewer names.
    """
    if source == "data":
        names = list(data)
    elif "," in source or (count == 1 and not Path(source).exists()):
        names = [name.strip() for name in source.split(",")]
    else:
        names = class_names(source)
        if len(names) != count and Path(source).is_file():
            ids = {one["id"]: one["name"] for one in read_coco_json(Path(source))["categories"]}
            if all(isinstance(i, int) for i in ids) and max(ids, default=0) + 1 == count:
                names = [ids.get(i, _UNUSED.format(i)) for i in range(count)]
    if len(names) != count:
        raise UsageError(
            f"--teacher-classes gives {len(names)} names ({listed(names)}), and the teacher has"
            f" {count} classes: give one name for each, in the order of its training."
        )
    return names
