"""Data sets in COCO's JSON format, given by two paths in a config.

Detectron2 needs every data set registered under a name by Python code; the functions here register
one from its paths. Every fault of a file is reported in one sentence that names the entry.
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
    """Register a COCO-format data set and read it.

    Args:
        json_file: annotations in COCO's detection format; ``id``, ``area`` and ``iscrowd`` of an
            annotation are only needed for evaluation.
        image_root: the folder that ``file_name`` of each image is relative to.
        name: the name under which the data set is registered; ``json_file`` itself by default.
        labeled: False leaves out every annotation, which makes the images unlabelled.

    Returns:
        Detectron2's dataset dicts. Category ids become 0..K-1 in ascending order; boxes are XYWH as
        in the file.

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

    The file is read on first use. Registering the same data set again changes nothing.

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
    name = name or json_file
    if name in DatasetCatalog.list():
        metadata = MetadataCatalog.get(name)
        known = (metadata.get("json_file"), metadata.get("image_root"))
        if known != (json_file, image_root):
            raise DatasetError(
                f"The data set name {name!r} already belongs to {known[0]} with images in "
                f"{known[1]}: choose another name."
            )
        return name
    DatasetCatalog.register(name, lambda: load_registered(name, json_file, image_root))
    MetadataCatalog.get(name).set(json_file=json_file, image_root=image_root, evaluator_type="coco")
    return name


def load_image_folder(*, image_root: str) -> list[dict]:
    """The images below a folder, sorted by path, as unlabelled dataset dicts; "" gives none.

    Files and folders whose names begin with a dot are left out.

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
    """Dataset dicts without the key ``annotations``, which makes the images unlabelled."""
    return [{k: v for k, v in record.items() if k != "annotations"} for record in records]


def load_registered(name: str, json_file: str, image_root: str) -> list[dict]:
    """Read the file of a registered data set and set the class names in its metadata."""
    check_paths(name, json_file, image_root)
    records, classes, id_map = coco_records(
        read_coco_json(json_file), json_file=json_file, image_root=image_root
    )
    MetadataCatalog.get(name).set(thing_classes=classes, thing_dataset_id_to_contiguous_id=id_map)
    return records


def read_coco_json(json_file: str | os.PathLike) -> dict:
    """Parse a COCO-format file. A file without ``annotations`` lists unlabelled images.

    Raises:
        DatasetError: the file is missing, truncated or has no ``images`` and ``categories``.
    """
    path = Path(json_file)
    if not path.is_file():
        raise DatasetError(f"The annotation file {path} does not exist. {_advice(path)}")
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DatasetError(not_json(path, str(error))) from error
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
            category; the first such entry is reported.
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


def check_paths(name: str, json_file: str, image_root: str | None) -> None:
    """Raise DatasetError if the file of a data set, or its image folder if known, is missing."""
    for what, path, exists in (
        ("file", json_file, os.path.isfile),
        ("image folder", image_root, os.path.isdir),
    ):
        if path and not exists(path):
            raise DatasetError(
                f"Data set {name!r}: the {what} {path} does not exist. {_advice(path, name)}"
            )


def not_json(path: Path, reason: str) -> str:
    """The sentence for a file that cannot be parsed."""
    return f"{path} is truncated or not JSON ({reason}): copy or export it again."


def _advice(path: str | os.PathLike, name: str = "") -> str:
    """The sentence that says what to do about a missing file or folder of a data set."""
    if name.startswith("quickstart_"):
        return "Make the bundled data with: python tools/make_quickstart_data.py"
    if str(path).startswith("~"):
        return "Write the full path, because it begins with the home folder of an unknown user."
    root = os.environ.get("DETECTRON2_DATASETS")
    now = f"is {root}" if root else "is not set, so ./datasets is searched"
    return (
        "Correct the path, or set DETECTRON2_DATASETS to the folder that holds the data sets (it "
        f"{now})."
    )
