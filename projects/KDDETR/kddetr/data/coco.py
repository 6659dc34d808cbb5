"""Data sets in COCO's JSON format, given by two paths in a config.

Detectron2 needs every data set registered under a name by Python code; the functions here register
one from its paths. Every fault of a file is reported in one sentence that names the entry.
"""

import contextlib
import gc
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode

from ..errors import DatasetError
from .class_differences import class_difference
from .entries import (
    check_annotations,
    check_class_names,
    check_ids,
    check_image,
    check_listed_once,
    is_left_out,
)
from .paths import advice, check_paths

_log = logging.getLogger(__name__)


def load_coco_format(
    *, json_file: str, image_root: str, name: str | None = None, labeled: bool = True
) -> list[dict]:
    """Register a COCO-format data set and read it.

    Args:
        json_file: annotations in COCO's detection format; ``id``, ``area`` and ``iscrowd`` of an
            annotation are only needed for evaluation.
        image_root: the folder that ``file_name`` of each image is relative to.
        name: the name under which the data set is registered; ``json_file`` itself by default.
        labeled: False leaves out every annotation, which makes the images unlabelled.

    Returns:
        Detectron2's dataset dicts. Category ids become 0..K-1 in ascending order; boxes are XYWH as
        in the file. ``iscrowd`` is 1 for a crowd and for a box that says ``ignore``.

    Raises:
        DatasetError: a path is missing, the file is truncated, or an entry is invalid.
    """
    name = register_coco_format(name=name, json_file=json_file, image_root=image_root)
    records = DatasetCatalog.get(name)
    if not records:
        raise DatasetError(f"{json_file} lists no image: name a file that lists images.")
    return records if labeled else without_annotations(records)


def register_coco_format(*, json_file: str, image_root: str, name: str | None = None) -> str:
    """Register a COCO-format data set and return its name, by default its ``json_file``.

    The file is read on first use. Registering the same data set again changes nothing. If one file
    is used with several image folders, the names after the first one contain the folder.

    Args:
        json_file: annotations in COCO's detection format.
        image_root: the folder that ``file_name`` of each image is relative to.
        name: the name of the data set; None: ``json_file``.

    Raises:
        DatasetError: a path is empty, or the name already belongs to another data set.
    """
    json_file, image_root = os.path.expanduser(json_file), os.path.expanduser(image_root)
    if not json_file or not image_root:
        what = "json_file" if not json_file else "image_root"
        raise DatasetError(
            f"The data set has no {what}: name your COCO-format file and image folder, for "
            "training with dataloader.train.dataset.json_file=FILE "
            "dataloader.train.dataset.image_root=FOLDER and for testing with "
            "dataloader.test.dataset.json_file=FILE dataloader.test.dataset.image_root=FOLDER."
        )
    files = (json_file, image_root)
    if not name:
        name = json_file
        if _registered_files(name) not in (None, files):
            name = f"{json_file} with the images in {image_root}"
    known = _registered_files(name)
    if known == files:
        return name
    if known is not None:
        raise DatasetError(
            f"The data set name {name!r} already belongs to {known[0]} with images in {known[1]}: "
            "choose another name."
        )
    DatasetCatalog.register(name, lambda: load_registered(name, json_file, image_root))
    MetadataCatalog.get(name).set(json_file=json_file, image_root=image_root, evaluator_type="coco")
    return name


def _registered_files(name: str) -> tuple[str | None, str | None] | None:
    """The JSON file and image folder of a registered data set; None where the name is free."""
    if name not in DatasetCatalog.list():
        return None
    metadata = MetadataCatalog.get(name)
    return metadata.get("json_file"), metadata.get("image_root")


def without_annotations(records: list[dict]) -> list[dict]:
    """Dataset dicts without the key ``annotations``, which makes the images unlabelled."""
    return [{k: v for k, v in record.items() if k != "annotations"} for record in records]


def load_registered(name: str, json_file: str, image_root: str) -> list[dict]:
    """Read the file of a registered data set and set the class names in its metadata."""
    check_paths(name, json_file, image_root)
    records, classes, id_map = coco_records(
        read_coco_json(json_file), json_file=json_file, image_root=image_root
    )
    set_classes(name, classes, id_map, json_file)
    return records


def set_classes(name: str, classes: list[str], id_map: dict, found: str) -> None:
    """Set the classes of a data set in Detectron2's metadata.

    Args:
        name: the registered name.
        classes: the class names that were found; empty if none are needed.
        id_map: category id -> contiguous class.
        found: what has these classes, such as a file.

    Raises:
        DatasetError: the name was registered with other classes, or other ids of them.
    """
    metadata = MetadataCatalog.get(name)
    known, known_ids = (
        metadata.get(key) for key in ("thing_classes", "thing_dataset_id_to_contiguous_id")
    )
    if known and classes and (list(known) != classes or known_ids not in (None, id_map)):
        difference = class_difference(known, classes, "the metadata", "the file")
        raise DatasetError(
            f"The name {name!r} is registered with other classes than {found} has: "
            f"{difference or 'the same names with other ids'}; give your data a name of its own, "
            "as configs/common/data/custom.py does, or correct the metadata that your code sets."
        )
    if not known:
        metadata.set(thing_classes=classes)
    if known_ids is None:
        metadata.set(thing_dataset_id_to_contiguous_id=id_map)


def read_coco_json(json_file: str | os.PathLike) -> dict:
    """Parse a COCO-format file in UTF-8, -16 or -32. A file without ``annotations`` lists
    unlabelled images.

    Raises:
        DatasetError: the file is missing, truncated or has no ``images`` and ``categories``.
    """
    path = Path(json_file)
    if not path.is_file():
        raise DatasetError(f"The annotation file {path} does not exist. {advice(path)}")
    try:
        with no_collection():
            document = json.loads(path.read_bytes())
    except UnicodeDecodeError as error:
        raise DatasetError(
            f"{path} is not text in UTF-8 ({error}): save it in this encoding."
        ) from error
    except (ValueError, RecursionError) as error:
        raise DatasetError(
            f"{path} is truncated or not JSON ({error}): copy or export it again."
        ) from error
    document = document if isinstance(document, dict) else {}
    for key in ("images", "categories", "annotations"):
        if not isinstance(document.get(key, [] if key == "annotations" else None), list):
            raise DatasetError(
                f"{path} has no list {key!r}: export it in COCO's detection format (images, "
                "annotations, categories)."
            )
    return document


def coco_records(
    document: dict, *, json_file: str, image_root: str
) -> tuple[list[dict], list[str], dict]:
    """The (dataset dicts, class names, category id -> contiguous class) of a parsed COCO file.

    Raises:
        DatasetError: an entry lacks a key, has an invalid value, or names an unknown image or
            category, two categories have the same name, or two images are the same file; the first
            such entry is reported.
    """
    check_ids(document["categories"], "category", "categories", json_file)
    check_ids(document["images"], "image", "images", json_file)
    categories = sorted(document["categories"], key=lambda c: c["id"])
    id_map = {category["id"]: i for i, category in enumerate(categories)}
    names = [c["id"] if c.get("name") is None else c["name"] for c in categories]
    check_class_names(names, json_file)
    with no_collection():
        records = _image_records(document, json_file, image_root)
        notes = document.get("annotations", ())
        check_annotations(notes, records, id_map, json_file)
        for note in notes:
            converted = {
                "bbox": note["bbox"],
                "bbox_mode": BoxMode.XYWH_ABS,
                "category_id": id_map[note["category_id"]],
                "iscrowd": int(is_left_out(note)),
            }
            records[note["image_id"]]["annotations"].append(converted)
    ignored = sum(1 for note in notes if note.get("ignore"))
    if ignored:
        _log.info(
            "%s: %d of %d boxes say ignore, and are left out as crowds are: they are neither "
            "objects nor background.",
            json_file,
            ignored,
            len(notes),
        )
    return [records[key] for key in sorted(records)], [str(name) for name in names], id_map


def _image_records(document: dict, json_file: str, image_root: str) -> dict:
    """The dataset dicts of a parsed file, still without annotations, by image id."""
    records: dict = {}
    for image in document["images"]:
        check_image(image, json_file)
        record = {
            "file_name": os.path.join(image_root, image["file_name"]),
            "image_id": image["id"],
        }
        record |= {k: image[k] for k in ("height", "width") if image.get(k) is not None}
        records[image["id"]] = record | ({"annotations": []} if "annotations" in document else {})
    check_listed_once({k: os.path.normpath(r["file_name"]) for k, r in records.items()}, json_file)
    return records


@contextlib.contextmanager
def no_collection() -> Iterator[None]:
    """No garbage collection, which would look through millions of new objects again and again."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()
