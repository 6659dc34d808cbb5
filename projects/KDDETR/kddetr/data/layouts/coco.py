"""COCO's format as it is exported: by COCO itself, Roboflow, FiftyOne, CVAT and many others.

The exports differ in where files lie, which is found by looking for the images that a file names:

- COCO: ``annotations/instances_train2017.json`` beside ``train2017/``
- Roboflow: ``train/_annotations.coco.json`` with the images beside it, ``valid/``, ``test/``
- FiftyOne: ``labels.json`` beside ``data/``, in one folder for each split or alone
- CVAT: ``annotations/instances_default.json`` beside ``images/``, with folders inside
"""

import mmap
import os
from collections.abc import Sequence
from pathlib import Path, PurePath

from ...errors import DatasetError
from ..coco import coco_records, read_coco_json
from .found import Document, Found
from .tree import Tree, split_named

# The words of files of COCO that are about other tasks than boxes, or have no labels.
_OTHER_TASKS = ("captions", "person_keypoints", "panoptic", "stuff", "image_info")

_OTHER_SPLIT = 2  # rank of a folder that is named like another split


def coco_files(tree: Tree) -> list[Path]:
    """The files of a folder that seem to be detection data in COCO's format.

    One with boxes and without categories is among them: it may have been cut off on the way, and
    is refused where it is read.
    """
    return [
        path
        for path in tree.of_kind(".json")
        if not path.name.startswith(_OTHER_TASKS)
        and (
            _mentions(path, b'"images"', b'"categories"') or _mentions(path, b'"images"', b'"bbox"')
        )
    ]


def read_coco(tree: Tree, files: Sequence[Path]) -> Found:
    """Read the files of :func:`coco_files`.

    Raises:
        DatasetError: two files are the same split, an entry is invalid, or images are missing.
    """
    found = Found("COCO", {})
    for path in files:
        split = split_named(tree.relative(path)) or "train"
        if split in found.documents:
            raise DatasetError(
                f"{tree.root}: {found.documents[split].json_file} and {path} both seem to be its "
                f"{split} split: keep one of them in the folder, or name the file instead of the "
                "folder."
            )
        found.documents[split] = Document(read_coco_json(path), "", str(path), str(path))
    _drop_parent_class(found)
    for split, document in found.documents.items():
        content = document.content
        coco_records(content, json_file=document.source, image_root="")  # checks every entry
        document.image_root, names = _place_images(document, tree, split, found.notes)
        if names:
            content["images"] = [
                {**image, "file_name": name} for image, name in zip(content["images"], names)
            ]
            document.json_file = ""
    _unite_classes(found)
    return found


def _mentions(path: Path, *words: bytes) -> bool:
    """Whether all words are in a file, which may be large."""
    if not path.is_file() or not path.stat().st_size:
        return False
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
    ):
        # UTF-16 and UTF-32, which are read too, have zeros between the letters.
        return content.find(b"\0") >= 0 or all(content.find(word) >= 0 for word in words)


def _drop_parent_class(found: Found) -> None:
    """Leave out the class that Roboflow adds: id 0, no box, and the parent of all other classes."""
    listed = [document.content["categories"] for document in found.documents.values()]
    entries = [one for categories in listed for one in categories if isinstance(one, dict)]
    parents = {str(one.get("supercategory")) for one in entries if one.get("id") != 0}
    first = [one for one in entries if one.get("id") == 0]
    if len(parents) != 1 or not first:
        return
    (parent,) = parents
    boxes = [n for d in found.documents.values() for n in d.content.get("annotations", ())]
    if any(one.get("name") != parent or one.get("supercategory") == parent for one in first) or any(
        isinstance(note, dict) and note.get("category_id") == 0 for note in boxes
    ):
        return
    for document, categories in zip(found.documents.values(), listed):
        if len(kept := [one for one in categories if one not in first]) < len(categories):
            document.content["categories"] = kept
            document.json_file = ""
    found.notes.append(
        f"The class {parent!r} (id 0) is left out: it has no box and is only the parent of the "
        "other classes, as Roboflow writes it."
    )


def _unite_classes(found: Found) -> None:
    """Give all splits the same classes, where their files list different ones."""
    lists = {
        split: [str(_name(one)) for one in _by_id(document.content["categories"])]
        for split, document in found.documents.items()
    }
    names = list(dict.fromkeys(name for listed in lists.values() for name in listed))
    if all(listed == names for listed in lists.values()):
        return
    for document in found.documents.values():
        content = document.content
        ids = {one["id"]: names.index(str(_name(one))) for one in content["categories"]}
        content["categories"] = [{"id": i, "name": name} for i, name in enumerate(names)]
        content["annotations"] = [
            {**note, "category_id": ids[note["category_id"]]}
            for note in content.get("annotations", ())
        ]
        document.json_file = ""
    counts = ", ".join(f"{len(listed)} in {split}" for split, listed in lists.items())
    found.notes.append(
        f"The splits list different classes, or in another order ({counts}); they were matched by "
        f"name, and all {len(names)} are used."
    )


def _by_id(categories: Sequence[dict]) -> list[dict]:
    return sorted(categories, key=lambda one: one["id"])


def _name(category: dict) -> object:
    return category["id"] if category.get("name") is None else category["name"]


def _place_images(
    document: Document, tree: Tree, split: str, notes: list[str]
) -> tuple[str, list[str]]:
    """The image folder of a file, and the file names in it; an empty list where the file's own
    names are right.
    """
    names = [image["file_name"] for image in document.content["images"]]
    if not names:
        return str(tree.root), []
    json_file = Path(document.source)
    roots = _roots(names[0], tree, json_file.parent)
    files = {str(file) for file in tree.files}
    whole = [r for r in roots if all(os.path.normpath(f"{r}/{name}") in files for name in names)]
    ranked = sorted((_rank(root, split, tree, json_file), root) for root in whole)
    # The folder of another split may hold files of the same names, while an own one is missing.
    if ranked and (ranked[0][0][0] < _OTHER_SPLIT or not _in_own_folder(names, split, tree)):
        if len(ranked) > 1 and ranked[0][0] == ranked[1][0]:
            raise DatasetError(
                f"The images of {json_file} are in {ranked[0][1]} and in {ranked[1][1]}: keep one "
                "of these folders."
            )
        return ranked[0][1], []
    if all((json_file.parent / name).is_file() for name in names):
        return str(json_file.parent), []  # absolute paths, or outside of the folder
    found = [_closest(name, split, tree) for name in names]
    if missing := [name for name, file in zip(names, found) if file is None]:
        more = f" and {len(missing) - 1} more of its {len(names)} images" if missing[1:] else ""
        raise DatasetError(
            f"{json_file}: the image {missing[0]}{more} cannot be found below {tree.root}, or only "
            "several times: copy the images there once, or correct file_name."
        )
    notes.append(
        f"The images of {json_file} were found by their names below {tree.root}, because the "
        "folders in its file names are others."
    )
    return str(tree.root), [str(tree.relative(file)) for file in found if file]


def _roots(name: str, tree: Tree, beside: Path) -> list[str]:
    """The folders in which there is a file of this relative name."""
    tail = f"/{name}"
    roots = [str(file)[: -len(tail)] for file in tree.by_name.get(PurePath(name).name, ())
             if str(file).endswith(tail)]  # fmt: skip
    return list(dict.fromkeys([*roots, str(beside)]))


def _rank(root: str, split: str, tree: Tree, json_file: Path) -> tuple[int, int]:
    """How unlikely an image folder is: that of another split, or far from the file."""
    path = Path(root)
    named = None
    if path.is_relative_to(tree.root):
        named = split_named(tree.relative(path) / "_")
    steps = os.path.relpath(path, json_file.parent).split(os.sep)
    likely = 0 if named == split else 1 if named is None else _OTHER_SPLIT
    return likely, len([step for step in steps if step != "."])


def _in_own_folder(names: Sequence[str], split: str, tree: Tree) -> bool:
    """Whether a folder that is named like a split has some of the files."""
    files = (file for name in names for file in tree.by_name.get(PurePath(name).name, ()))
    return any(split_named(tree.relative(file.parent) / "_") == split for file in files)


def _closest(name: str, split: str, tree: Tree) -> Path | None:
    """The only file whose path ends like a name, compared from the end; None for none or several.
    Files of the same split come first, and those of another do not count.
    """
    parts = [part for part in name.replace("\\", "/").split("/") if part]
    files = tree.by_name.get(parts[-1], []) if parts else []
    for length in range(len(parts), 0, -1):
        same = [file for file in files if list(file.parts[-length:]) == parts[-length:]]
        named = [split_named(tree.relative(file)) for file in same]
        same = [file for file, one in zip(same, named) if one == split] or [
            file for file, one in zip(same, named) if one is None
        ]
        if same:
            return same[0] if len(same) == 1 else None
    return None
