"""Pascal VOC: one XML file of boxes for each image.

The files lie in ``Annotations`` beside ``JPEGImages``, with lists of the splits in
``ImageSets/Main``, or beside the images in a folder for each split, as Roboflow exports them.

The corners are indices of pixels that begin at 1, the last one included, as VOC's own development
kit defines them and Detectron2 reads them: (1, 1, W, H) is the whole image. Some programs write
corners from 0; a folder in which a 0 occurs is read so. Difficult objects are neither objects nor
background, as in VOC's evaluation.
"""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from ...errors import DatasetError
from ..images import check_size
from .found import Found
from .made import Box, Labelled, count, make_document, read_lines, sized, some
from .tree import Tree, split_named

_CORNERS = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True)
class _Object:
    """An object as its file has it: name of the class, corners, and whether it is difficult."""

    name: str
    corners: tuple[float, ...]
    difficult: bool


@dataclass(frozen=True)
class _File:
    """An XML file: its path, the file name and the (width, height) that it states, NaN or 0 where
    it states none, and its objects.
    """

    path: Path
    image: str
    stated: tuple[float, float]
    objects: list[_Object]


def voc_files(tree: Tree) -> list[Path]:
    """The files of a folder that seem to be annotations in Pascal VOC's format."""
    return [path for path in tree.of_kind(".xml") if _is_voc(path)]


def read_voc(tree: Tree, paths: Sequence[Path]) -> Found:
    """Read the files of :func:`voc_files`.

    Raises:
        DatasetError: a file is no XML, an object has no box, or an image is missing or has another
            size than its file says.
    """
    found = Found("Pascal VOC", {})
    files = [_parsed(path) for path in paths]
    splits = _splits(tree, files, found.notes)
    objects = [one for members in splits.values() for file in members for one in file.objects]
    classes = sorted({one.name for one in objects})
    first = 0 if any(min(one.corners[:2]) < 1 for one in objects) else 1
    if first == 0:
        found.notes.append(
            "The corners of the boxes are read as coordinates from 0, because a 0 occurs in them; "
            "those of Pascal VOC itself begin at 1."
        )
    if difficult := sum(one.difficult for one in objects):
        found.notes.append(
            f"{count(difficult, 'difficult object')} {'is' if difficult == 1 else 'are'} neither "
            "trained on nor evaluated."
        )
    by_stem: dict[str, list[Path]] = {}
    for image in tree.images:
        by_stem.setdefault(image.stem, []).append(image)
    used: set[Path] = set()
    for split, members in splits.items():
        pairs = {_image_of(file, by_stem, tree): file for file in members}
        if len(pairs) < len(members):
            raise DatasetError(
                f"{tree.root}: several XML files of the {split} split belong to the same image: "
                "keep one for each image."
            )
        used |= pairs.keys()
        sizes = sized(pairs, found.notes)
        images = [
            _labelled(image, size, pairs[image], classes, first) for image, size in sizes.items()
        ]
        found.documents[split] = make_document(images, classes, str(tree.root))
    if "train" in splits and (rest := sorted({*tree.images} - used)):
        found.notes.append(
            f"{len(rest)} of {count(len(tree.images), 'image')} have no XML file, or are in no "
            f"list of a split, and are left out: {some(rest)}."
        )
    return found


def _is_voc(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        start = file.read(2000)
    return b"<annotation>" in start or b"<annotation " in start


def _parsed(path: Path) -> _File:
    try:
        root = ElementTree.parse(path).getroot()
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise DatasetError(f"{path} is truncated or not XML ({error}): export it again.") from error
    width, height = (_number(root.findtext(f"size/{key}")) for key in ("width", "height"))
    objects = []
    for entry in root.findall("object"):
        corners = tuple(_number(entry.findtext(f"bndbox/{key}")) for key in _CORNERS)
        name = (entry.findtext("name") or "").strip()
        if not name or not all(map(math.isfinite, corners)):
            raise DatasetError(
                f"{path}: an object has no {'bndbox of four numbers' if name else 'name'}: correct "
                "or remove it."
            )
        if corners[2] < corners[0] or corners[3] < corners[1]:
            raise DatasetError(
                f"{path}: the box {', '.join(f'{c:g}' for c in corners)} of {name!r} ends before "
                "it begins: correct it."
            )
        objects.append(_Object(name, corners, _number(entry.findtext("difficult")) == 1))
    return _File(path, root.findtext("filename") or "", (width, height), objects)


def _number(text: object) -> float:
    try:
        return float(text)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return math.nan


def _splits(tree: Tree, files: list[_File], notes: list[str]) -> dict[str, list[_File]]:
    """The files of each split: by the lists in ImageSets/Main, otherwise by their folders."""
    lists = {
        path.stem: path
        for path in tree.of_kind(".txt")
        if path.parts[-3:-1] == ("ImageSets", "Main")
        and path.stem in ("train", "val", "trainval", "test", "default")
    }
    if "train" in lists:
        lists.pop("trainval", None)
    if not lists:
        splits: dict[str, list[_File]] = {}
        for file in files:
            named = split_named(tree.relative(file.path).parent / "_")
            splits.setdefault(named or "train", []).append(file)
        return splits
    by_id = {_identity(file.path): file for file in files}
    splits, missing = {}, []
    for stem, path in lists.items():
        split = "train" if stem in ("trainval", "default") else stem
        members = splits.setdefault(split, [])
        for name in filter(None, read_lines(path)):
            file = by_id.get(name) or by_id.get(os.path.splitext(name)[0])
            (missing if file is None else members).append(file or Path(name))
    if missing:
        raise DatasetError(
            f"{tree.root}: the lists in ImageSets/Main name {count(len(missing), 'image')} without "
            f"an XML file in Annotations ({some(missing)}): add the files, or remove the lines."
        )
    notes.append(f"The splits are those of ImageSets/Main: {', '.join(sorted(lists))}.")
    return splits


def _identity(path: Path) -> str:
    """The name by which a list calls a file: its path below Annotations, without the suffix."""
    parts = path.with_suffix("").parts
    start = parts.index("Annotations") + 1 if "Annotations" in parts else len(parts) - 1
    return "/".join(parts[start:])


def _image_of(file: _File, by_stem: dict[str, list[Path]], tree: Tree) -> Path:
    """The image with the name of an XML file, or the name that is in it, that lies nearest."""
    images = by_stem.get(file.path.stem) or by_stem.get(Path(file.image).stem, [])

    def distance(image: Path) -> tuple[bool, int]:
        steps = os.path.relpath(image.parent, file.path.parent).split(os.sep)
        below = _identity(file.path).split("/")[:-1]
        return list(image.parts[-1 - len(below) : -1]) != below, len([s for s in steps if s != "."])

    nearest = sorted(images, key=distance)
    if not nearest or (nearest[1:] and distance(nearest[0]) == distance(nearest[1])):
        what = "several images" if nearest else "no image"
        raise DatasetError(
            f"{file.path}: there is {what} of the name {file.path.stem} below {tree.root}: give "
            "each XML file one image of its name."
        )
    return nearest[0]


def _labelled(
    image: Path, size: tuple[int, int], file: _File, classes: Sequence[str], first: int
) -> Labelled:
    if all(side > 0 for side in file.stated):
        check_size(image, size, file.stated)
    boxes = []
    for one in file.objects:
        left, top, right, bottom = one.corners
        left, top = left - first, top - first
        xywh = (left, top, right - left, bottom - top)
        boxes.append(Box(classes.index(one.name), xywh, one.difficult))
    return Labelled(image, size, boxes)
