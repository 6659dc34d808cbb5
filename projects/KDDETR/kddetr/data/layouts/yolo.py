"""YOLO folders: a ``data.yaml``, and one text file of boxes for each image.

The conventions are those of Ultralytics' reader. A label file has the path of its image with the
last folder ``images`` replaced by ``labels``; an image without one shows no object. A line is
``class x y width height``, the centre and the size as fractions of the image, after it was turned
upright as its EXIF entry says; or ``class x1 y1 x2 y2 ...``, a polygon, whose box is around its
points.

Own code, and none of the libraries that convert these files: supervision 0.31 finds the images of
one flat folder only, passes over several kinds of images and over unknown classes, rounds to
float32, and draws every polygon as a mask (8 s and 1.2 GB for 50 polygons of a 12-megapixel photo);
globox 2.9 knows neither EXIF nor WebP.
"""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from ...errors import DatasetError
from ..folders import files_below, image_suffixes
from .found import Found
from .made import Box, Labelled, count, make_document, read_lines, sized, some
from .tree import Tree

_KEYS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}
_TOLERANCE = 0.01  # by which a fraction may lie outside of 0 to 1, because of rounding
_LARGEST = 1_000_000  # bytes of a file that can be a data.yaml


def yolo_files(tree: Tree) -> list[Path]:
    """The files of a folder that describe a YOLO data set."""
    return [path for path in tree.of_kind(".yaml", ".yml") if _describes_data(path)]


def read_yolo(path: Path) -> Found:
    """Read the splits that a ``data.yaml`` names.

    Raises:
        DatasetError: the file names no class, or a split that does not exist, or a label file has
            a line that is no box of a known class.
    """
    description = _parsed(path)
    found = Found("YOLO", {})
    classes = _class_names(description, path)
    numbers_of_pose = _numbers_of_pose(description, path)
    for split, keys in _KEYS.items():
        value = next((description[key] for key in keys if description.get(key)), None)
        if not value:
            continue
        files = _images_of(value, path, description, split, found.notes)
        if files is None:
            continue
        sizes = sized(files, found.notes)
        labels = {file: label_file(file) for file in sizes}
        without = [file for file, label in labels.items() if not label.is_file()]
        if without and len(without) < len(sizes):
            found.notes.append(
                f"{len(without)} of the {count(len(sizes), 'image')} of the {split} split have no "
                f"label file, such as {without[0]}: these are images without objects."
            )
        images = [
            Labelled(file, size, _boxes(labels[file], size, classes, numbers_of_pose))
            for file, size in sizes.items()
        ]
        found.documents[split] = make_document(images, classes, f"{value} of {path}")
    return found


def label_file(image: Path) -> Path:
    """The label file of an image: below ``labels`` instead of the last ``images`` of its path,
    otherwise beside it.
    """
    parts = list(image.with_suffix(".txt").parts)
    for i in range(len(parts) - 2, -1, -1):
        if parts[i] == "images":
            parts[i] = "labels"
            break
    return Path(*parts)


def _describes_data(path: Path) -> bool:
    if not path.is_file() or path.stat().st_size > _LARGEST:
        return False
    try:
        content = _parsed(path)
    except DatasetError:
        return path.stem == "data"
    return ("names" in content or "nc" in content) and any(
        key in content for keys in _KEYS.values() for key in keys
    )


def _parsed(path: Path, loader: type = yaml.SafeLoader) -> dict[str, Any]:
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), loader)
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = str(error).split("\n")[0]
        raise DatasetError(f"{path} is not YAML in UTF-8 ({reason}): correct it.") from error
    return content if isinstance(content, dict) else {}


def _class_names(description: dict, path: Path) -> list[str]:
    # As they are written: YAML takes yes and no for truth values, and 010 for 8.
    names = _parsed(path, yaml.BaseLoader).get("names")
    if names is None and type(number := description.get("nc")) is int:
        return [f"class {i}" for i in range(number)]
    if isinstance(names, dict):
        whole = {key.strip(): name for key, name in names.items()}
        if {*whole} != {str(i) for i in range(len(whole))}:
            raise DatasetError(
                f"{path}: names must number the classes from 0 to {len(whole) - 1}, and not as "
                f"{', '.join(list(whole)[:5])}."
            )
        names = [whole[str(i)] for i in range(len(whole))]
    if not isinstance(names, list) or not names:
        raise DatasetError(f"{path} names no class: list them as names: [cat, dog].")
    for number, name in enumerate(names):
        if not isinstance(name, str) or not name:
            raise DatasetError(f"{path}: the class {number} has {name!r} as its name: correct it.")
    return names


def _numbers_of_pose(description: dict, path: Path) -> int:
    """How many numbers follow the class in a line with keypoints; 4 where there are none."""
    shape = description.get("kpt_shape")
    if shape is None:
        return 4
    if not isinstance(shape, list) or not all(type(number) is int for number in shape):
        raise DatasetError(f"{path}: kpt_shape must be two whole numbers, not {shape!r}.")
    return 4 + math.prod(shape)


def _images_of(
    value: object, path: Path, description: dict, split: str, notes: list[str]
) -> list[Path] | None:
    """The images of a split; None for a test split that does not exist."""
    files: list[Path] = []
    for entry in value if isinstance(value, list) else [value]:
        place = _place(str(entry), path, description)
        if place is None and split == "test":
            notes.append(f"{path} names a test split, {entry}, which does not exist.")
            return None
        if place is None:
            raise DatasetError(
                f"{path} names {entry} as its {split} split, which does not exist: correct the "
                "path, which is relative to this file or to the folder in its key path"
                + ("; or remove the key, and a part of train is taken." * (split == "val") or ".")
            )
        if place.is_dir():
            suffixes = image_suffixes()
            files += [file for file in files_below(place) if file.suffix.lower() in suffixes]
        elif place.suffix.lower() == ".txt":
            files += _listed(place, path.parent)
        else:
            files.append(place)
    return sorted({Path(os.path.normpath(file)) for file in files})


def _place(entry: str, path: Path, description: dict) -> Path | None:
    """The folder or file that an entry names."""
    base = path.parent / str(description.get("path") or "")
    # Roboflow writes ../train/images into a file that lies beside the folder train.
    tries = [base / entry, path.parent / entry, path.parent / entry.removeprefix("../")]
    return next((place.absolute() for place in tries if place.exists()), None)


def _listed(listing: Path, root: Path) -> list[Path]:
    """The images that a text file lists, one a line, relative to it or to ``data.yaml``."""
    files, missing = [], []
    for line in filter(None, read_lines(listing)):
        tries = (listing.parent / line, root / line)
        file = next((file for file in tries if file.is_file()), None)
        (missing if file is None else files).append(file or Path(line))
    if missing:
        raise DatasetError(
            f"{listing} lists {count(len(missing), 'image')} that do not exist ({some(missing)}): "
            "correct the paths, which are relative to the folder of this file."
        )
    return files


def _boxes(
    label: Path, size: tuple[int, int], classes: Sequence[str], numbers_of_pose: int
) -> list[Box]:
    """The boxes of a label file; none where it does not exist."""
    if not label.is_file():
        return []
    boxes = []
    for number, line in enumerate(read_lines(label), 1):
        if words := line.split():
            try:
                boxes.append(_box([float(word) for word in words], size, classes, numbers_of_pose))
            except ValueError as error:
                reason = "it has words that are no numbers" if "float" in str(error) else error
                raise DatasetError(
                    f"{label}, line {number}: {reason}; a line is class x y width height, in "
                    "fractions of the image, or a class and a polygon: correct or remove it."
                ) from error
    return boxes


def _box(
    values: list[float], size: tuple[int, int], classes: Sequence[str], numbers_of_pose: int
) -> Box:
    """A line of a label file. A ValueError says what is wrong with it."""
    label, places = values[0], values[1:]
    if not label.is_integer() or not 0 <= label < len(classes):
        raise ValueError(f"the class is {label:g}, and data.yaml names 0 to {len(classes) - 1}")
    if len(places) == numbers_of_pose:
        places = places[:4]  # the box; the keypoints are not read
    if len(places) != 4 and (len(places) < 6 or len(places) % 2):
        raise ValueError(f"there are {len(places)} numbers after the class")
    if not all(-_TOLERANCE <= value <= 1 + _TOLERANCE for value in places):
        raise ValueError("there are numbers outside of 0 to 1")
    width, height = size
    if len(places) == 4:
        x, y, w, h = places
        left, top = x - w / 2, y - h / 2
    else:
        left, top = min(places[::2]), min(places[1::2])
        w, h = max(places[::2]) - left, max(places[1::2]) - top
    if min(w, h) < 0:
        raise ValueError("the box has a negative width or height")
    return Box(int(label), (left * width, top * height, w * width, h * height))
