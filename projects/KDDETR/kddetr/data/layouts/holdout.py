"""A validation split taken from the training images, where a folder has none.

The side of an image depends on its file name and the seed, so that it stays the same when images
are added; only where a class would be missing on a side, a picture is moved. Copies of one picture
come to the same side, or the validation would be about images that were trained on.
"""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from ...errors import DatasetError
from .found import Document

# Roboflow writes several augmented copies of one picture: 1_jpg.rf.HASH1.jpg, 1_jpg.rf.HASH2.jpg.
_COPY = re.compile(r"\.rf\.\w+$")


def hold_out(train: Document, share: float, seed: int) -> tuple[Document, Document]:
    """Divide images into those for training and those for validation.

    Args:
        train: all labelled images.
        share: about which share of the pictures is for validation, in (0, 1).
        seed: another seed gives another division.

    Raises:
        DatasetError: there are fewer than two different pictures with objects.
    """
    images = train.content["images"]
    groups = _groups(images, train.image_root)
    if len(set(groups)) < 2:
        raise DatasetError(
            f"{train.source} has {len(images)} image{'s'[len(images) == 1 :]} of only "
            f"{len(set(groups))} different picture, and no validation split: a validation split "
            "cannot be taken from it; add images."
        )
    shown = {note["image_id"] for note in train.content.get("annotations", ())}
    if len({group for image, group in zip(images, groups) if image["id"] in shown}) < 2:
        raise DatasetError(
            f"{train.source} has no validation split, and only 1 of its pictures has objects, so "
            "that none can be taken from it: label more images."
        )
    # From 0 to 1, evenly; a cryptographic hash, because Python's own differs between runs.
    places = {
        group: int.from_bytes(hashlib.sha256(f"{seed} {group}".encode()).digest()[:7], "big")
        / 2**56
        for group in sorted(set(groups))
    }
    held = {group for group, place in places.items() if place < share} or {
        min(places, key=lambda group: places[group])
    }
    if len(held) == len(places):
        held.remove(max(places, key=lambda group: places[group]))
    _spread_classes(train.content, groups, places, held, max(1, round(1.5 * share * len(places))))
    sides = [group in held for group in groups]
    return _part(train, sides, False), _part(train, sides, True)


def _spread_classes(
    content: dict, groups: Sequence[str], places: dict, held: set, most: int
) -> None:
    """Move pictures so that every class is trained on, and as many as possible are validated on.

    A picture moves to validation, frequent classes first, only where that takes no class from
    training, and while fewer than ``most`` pictures are there. Validation has an object in any
    case, even where that takes a class from training.
    """
    group_of = {image["id"]: group for image, group in zip(content["images"], groups)}
    owners: dict = {}
    for note in content.get("annotations", ()):
        owners.setdefault(note["category_id"], set()).add(group_of[note["image_id"]])
    with_class = sorted(owners.values(), key=lambda own: (len(own), sorted(own)))
    with_objects = sorted(set().union(*with_class), key=lambda group: places[group])

    def shared(group: str) -> list[set]:
        return [own for own in with_class if group in own]

    def spared(group: str) -> bool:
        return all(own - held - {group} for own in shared(group))

    for own in with_class:
        if own <= held:
            kept = (g for g in own if all(o == {g} or o & held - {g} for o in shared(g)))
            held.remove(
                max(kept, key=lambda g: places[g], default=max(own, key=lambda g: places[g]))
            )
    if held.isdisjoint(with_objects):
        held.add(next(filter(spared, with_objects), with_objects[0]))
    for own in reversed(with_class):
        if len(own) > 1 and not own & held and len(held) < most:
            held |= set(sorted(filter(spared, own), key=lambda g: places[g])[:1])


def _groups(images: Sequence[dict], image_root: str) -> list[str]:
    """The name of the picture of each image; copies of a picture have the same."""
    names = [_picture(image["file_name"]) for image in images]
    files = [Path(image_root, image["file_name"]) for image in images]
    sizes = [file.stat().st_size for file in files]
    alike: dict = {}  # only files of the same size can be equal
    for name, file, size in sorted(zip(names, files, sizes)):
        alike.setdefault(size, []).append((name, file))
    first: dict = {}  # name of a picture -> name of the first picture that is equal
    for members in alike.values():
        seen: dict = {}
        for name, file in members if len(members) > 1 else ():
            content = hashlib.sha256(file.read_bytes()).digest()
            other, mine = _root(seen.setdefault(content, name), first), _root(name, first)
            first[max(other, mine)] = min(other, mine)
    return [_root(name, first) for name in names]


def _root(name: str, first: dict) -> str:
    while first.get(name, name) != name:
        name = first[name]
    return name


def _picture(file_name: str) -> str:
    """A file name without its suffix and without what marks a copy."""
    return _COPY.sub("", file_name.rpartition(".")[0] or file_name)


def _part(train: Document, sides: Sequence[bool], wanted: bool) -> Document:
    images = [image for image, side in zip(train.content["images"], sides) if side == wanted]
    ids = {image["id"] for image in images}
    notes = [n for n in train.content.get("annotations", ()) if n["image_id"] in ids]
    content = {**train.content, "images": images, "annotations": notes}
    return Document(content, train.image_root, train.source)
