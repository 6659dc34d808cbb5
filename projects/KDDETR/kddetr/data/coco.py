"""Data sets in COCO's JSON format: the user's own folder without a line of Python.

Detectron2 wants a data set registered under a name before it can be used; here a config names two
paths and that is all. What is wrong with the file is said in one sentence, with the entry that is
to blame.
"""

import json
import os
from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode

from ..errors import DatasetError
from .entries import check_annotation, check_ids, check_image

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm")


def load_coco_format(
    *, json_file: str, image_root: str, name: str | None = None, labeled: bool = True
) -> list[dict]:
    """Read a COCO-format file and register its classes: a config needs nothing but two paths.

    Args:
        json_file: annotations in COCO's detection format; ``id``, ``area`` and ``iscrowd`` of an
            annotation are only needed for evaluation.
        image_root: the folder that ``file_name`` of each image is relative to.
        name: the name under which the data set is registered; ``json_file`` itself by default.
        labeled: False leaves out every annotation, and the images are unlabelled rather than empty.

    Returns:
        Detectron2's dataset dicts. Category ids become 0..K-1 in ascending order; boxes are XYWH as
        in the file.

    Raises:
        DatasetError: a path is missing, the file is truncated, or an entry lacks what detection
            needs.
    """
    name = register_coco_format(name=name, json_file=json_file, image_root=image_root)
    records = DatasetCatalog.get(name)
    if not records:
        raise DatasetError(f"{json_file} lists no image: an empty data set cannot be used.")
    return records if labeled else without_annotations(records)


def register_coco_format(*, json_file: str, image_root: str, name: str | None = None) -> str:
    """Register a COCO-format data set and return its name, by default its ``json_file``.

    The file is read on first use. Registering the same data set again changes nothing.

    Raises:
        DatasetError: a path is empty, or the name already belongs to another data set.
    """
    json_file, image_root = os.path.expanduser(json_file), os.path.expanduser(image_root)
    if not json_file or not image_root:
        what = "json_file" if not json_file else "image_root"
        raise DatasetError(
            f"The data set has no {what}: name your COCO-format file and image folder, for example "
            "dataloader.train.dataset.json_file=FILE dataloader.train.dataset.image_root=FOLDER"
        )
    name = name or json_file
    if name in DatasetCatalog.list():
        metadata = MetadataCatalog.get(name)
        known = (metadata.get("json_file"), metadata.get("image_root"))
        if known != (json_file, image_root):
            raise DatasetError(
                f"The data set name {name!r} already belongs to {known[0]} with images in "
                f"{known[1]}: choose another."
            )
        return name
    DatasetCatalog.register(name, lambda: load_registered(name, json_file, image_root))
    MetadataCatalog.get(name).set(json_file=json_file, image_root=image_root, evaluator_type="coco")
    return name


def load_image_folder(*, image_root: str) -> list[dict]:
    """List the images below a folder, sorted, as unlabelled dataset dicts; "" gives none.

    Hidden files and folders, whose names begin with a dot, are passed over.

    Raises:
        DatasetError: the folder does not exist or holds no image.
    """
    if not image_root:
        return []
    root = Path(image_root).expanduser()
    found = (p for p in root.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
    files = sorted(p for p in found if not any(s[0] == "." for s in p.relative_to(root).parts))
    if not files:
        reason = "holds no image" if root.is_dir() else "is not a folder"
        raise DatasetError(f"{root} {reason}: name the folder of your unlabelled images.")
    return [{"file_name": str(p), "image_id": i} for i, p in enumerate(files)]


def without_annotations(records: list[dict]) -> list[dict]:
    """Return the dataset dicts without their ``annotations`` key: unlabelled images."""
    return [{k: v for k, v in record.items() if k != "annotations"} for record in records]


def read_coco_json(json_file: str | os.PathLike, *, name: str = "") -> dict:
    """Parse a COCO-format file; ``name``, of a data set, is for the message.

    A file without ``annotations`` lists unlabelled images.

    Raises:
        DatasetError: it is missing, truncated or has no ``images`` and ``categories``.
    """
    path = Path(json_file)
    if not path.is_file():
        raise DatasetError(f"The annotation file {path} does not exist. {where_to_put(path, name)}")
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DatasetError(broken(path, str(error))) from error
    document = document if isinstance(document, dict) else {}
    for key in ("images", "categories", "annotations"):
        if not isinstance(document.get(key, [] if key == "annotations" else None), list):
            raise DatasetError(f"{path} is not in COCO's detection format: it has no list {key!r}.")
    return document


def coco_records(
    document: dict, *, json_file: str, image_root: str
) -> tuple[list[dict], list[str], dict]:
    """Turn a parsed COCO file into (dataset dicts, class names, category id -> contiguous class).

    Raises:
        DatasetError: the first entry that lacks a key, holds what it cannot hold, or points to an
            unknown image or category.
    """
    check_ids(document["categories"], "category", "categories", json_file)
    check_ids(document["images"], "image", "images", json_file)
    categories = sorted(document["categories"], key=lambda c: c["id"])
    id_map = {category["id"]: i for i, category in enumerate(categories)}
    names = [c["id"] if c.get("name") is None else c["name"] for c in categories]
    records: dict = {}
    for image in document["images"]:
        check_image(image, json_file)
        record = {
            "file_name": os.path.join(image_root, image["file_name"]),
            "image_id": image["id"],
        }
        record |= {k: image[k] for k in ("height", "width") if image.get(k) is not None}
        records[image["id"]] = record | ({"annotations": []} if "annotations" in document else {})
    for note in document.get("annotations", ()):
        check_annotation(note, records, id_map, json_file)
        converted = {
            "bbox": note["bbox"],
            "bbox_mode": BoxMode.XYWH_ABS,
            "category_id": id_map[note["category_id"]],
            "iscrowd": note.get("iscrowd", 0),
        }
        records[note["image_id"]]["annotations"].append(converted)
    return [records[key] for key in sorted(records)], [str(name) for name in names], id_map


def load_registered(name: str, json_file: str, image_root: str) -> list[dict]:
    """Read the file of a registered data set and give its metadata the class names."""
    check_folder(name, image_root)
    document = read_coco_json(json_file, name=name)
    records, classes, id_map = coco_records(document, json_file=json_file, image_root=image_root)
    MetadataCatalog.get(name).set(thing_classes=classes, thing_dataset_id_to_contiguous_id=id_map)
    return records


def check_folder(name: str, image_root: str) -> None:
    """Raise DatasetError if the image folder of data set ``name`` does not exist."""
    if not os.path.isdir(image_root):
        path = Path(image_root)
        raise DatasetError(
            f"Data set {name!r}: the image folder {path} does not exist. "
            + where_to_put(path, name)
        )


def broken(path: Path, reason: str) -> str:
    """Return the sentence for a file that cannot be parsed."""
    return f"{path} is truncated or not JSON ({reason}): copy or export it again."


def where_to_put(path: Path, name: str = "") -> str:
    """Return the sentence that says what to do about a missing file."""
    if name.startswith("quickstart_"):
        return "Make the bundled data with: python tools/quickstart/make_data.py"
    if str(path).startswith("~"):
        return "Write the path without ~."
    root = os.environ.get("DETECTRON2_DATASETS")
    now = f"is {root}" if root else "is not set, so ./datasets is searched"
    return f"Correct the path, or let DETECTRON2_DATASETS name the folder above (it {now})."
