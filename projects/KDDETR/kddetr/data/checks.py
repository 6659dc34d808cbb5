"""Checks of the data sets that a config names, before a model is built.

Detectron2 itself would stop later and with a traceback: at a missing image in the middle of the
training, at a misspelt test set in the first evaluation.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils.registry import locate

from ..errors import DatasetError, did_you_mean
from .class_names import class_difference
from .coco import (
    check_paths,
    coco_records,
    load_coco_format,
    not_json,
    read_coco_json,
    register_coco_format,
)
from .entries import check_for_metric
from .plausibility import check_boxes

# A larger file (bytes) whose classes are known is not parsed only to be checked: COCO's takes 10 s.
LARGE_FILE = 64 * 2**20


def check_dataset(
    names: str | Sequence[str], *, for_training: bool = False, for_evaluation: bool = False
) -> None:
    """Check that data sets can be used, as far as that is quick, and register their class names.

    Args:
        names: a registered name, or several names of data sets that are used together and must
            have the same classes.
        for_training: also require annotations, with a box to learn from in at least one data set.
        for_evaluation: also require what COCO's metric reads: an ``area``, an ``iscrowd`` and a
            unique ``id`` above 0 for every annotation, and integer ids of images and categories.

    Raises:
        DatasetError: a name is not registered, a file, folder or image is missing, an entry is
            invalid, the boxes are not in COCO's form, or the classes differ.
    """
    names = [names] if isinstance(names, str) else list(names)
    if not names:
        raise DatasetError("No data set is named: give at least one registered name.")
    boxes = []
    for name in names:
        if name not in DatasetCatalog.list():
            hint = did_you_mean(
                str(name), DatasetCatalog.list(), otherwise="check the spelling.", count=3
            )
            raise DatasetError(
                f"No data set is registered as {name!r}; {hint} Your own COCO-format data needs no "
                "registered name: see configs/common/data/custom.py."
            )
        boxes.append(_check_registered(name, for_training, for_evaluation))
    if for_training and not any(count is None or count for count in boxes):
        raise DatasetError(_nothing_to_learn(names))
    check_same_classes(names)


def check_same_classes(names: Sequence[str]) -> None:
    """Raise DatasetError if registered data sets have different classes, where these are known."""
    known = {n: MetadataCatalog.get(n).get("thing_classes") for n in names}
    known = {n: list(classes) for n, classes in known.items() if classes}
    for name, classes in known.items():
        first = next(iter(known))
        if difference := class_difference(known[first], classes):
            raise DatasetError(
                f"Data sets {first!r} and {name!r} have different classes: {difference}; give both"
                " files the same categories."
            )


def dataset_names(node) -> list[str]:
    """The registered names that a part of a config uses; data sets given by paths are registered.

    The part is a name, a list of names, a node with ``names`` (``get_detection_dataset_dicts``), or
    a node of :func:`load_coco_format` or :func:`register_coco_format`; others use no name.

    Raises:
        DatasetError: a path is empty, or the name already belongs to another data set.
    """
    if node is None or isinstance(node, str):
        return [node] if node else []
    if not hasattr(node, "keys"):
        return [name for item in node for name in dataset_names(item)]
    if "names" in node:
        return dataset_names(node["names"])
    target = node.get("_target_")
    target = locate(target) if isinstance(target, str) else target
    if target in (load_coco_format, register_coco_format):
        keys = ("json_file", "image_root", "name")
        return [register_coco_format(**{k: node[k] for k in keys if k in node})]
    return []


def _check_registered(name: str, for_training: bool, for_evaluation: bool) -> int | None:
    """Check one data set; return the number of its boxes to learn from, None where not counted."""
    metadata = MetadataCatalog.get(name)
    json_file, image_root = metadata.get("json_file"), metadata.get("image_root")
    if not json_file:
        return None
    check_paths(name, json_file, image_root)
    if metadata.get("evaluator_type", "coco") != "coco":
        return None  # other formats name images and classes in their own way
    if os.path.getsize(json_file) > LARGE_FILE and metadata.get("thing_classes"):
        _check_end(Path(json_file))
        return None
    document = read_coco_json(json_file)
    if not document["images"]:
        raise DatasetError(
            f"Data set {name!r}: {json_file} lists no image; name a file that lists images."
        )
    records, classes, id_map = coco_records(
        document, json_file=str(json_file), image_root=str(image_root or "")
    )
    _check_images_exist(name, records)
    if for_evaluation:
        check_for_metric(document, str(json_file))
    if not classes and (for_training or for_evaluation):
        raise DatasetError(f"{json_file} names no category: list at least one class.")
    if not metadata.get("thing_classes"):
        metadata.set(thing_classes=classes, thing_dataset_id_to_contiguous_id=id_map)
    if for_training and "annotations" not in document:
        raise DatasetError(_nothing_to_learn([name]))
    return check_boxes(records, str(json_file)) if for_training or for_evaluation else None


def _check_images_exist(name: str, records: Sequence[dict]) -> None:
    """Look for every image. Listing each folder once is far quicker than looking up each file."""
    files = [os.path.split(record["file_name"]) for record in records]
    present = {
        folder: set(os.listdir(folder)) if os.path.isdir(folder) else set()
        for folder in {folder for folder, _ in files}
    }
    missing = [os.path.join(*file) for file in files if file[1] not in present[file[0]]]
    # A file system may also find a file under another spelling of its name.
    missing = [file for file in missing if not os.path.isfile(file)]
    if missing:
        others = f" and {len(missing) - 1} more of its {len(files)} images do not exist"
        raise DatasetError(
            f"Data set {name!r}: the image {missing[0]}"
            f"{others if len(missing) > 1 else ' does not exist'}: correct the image folder or the "
            "file names."
        )


def _check_end(path: Path) -> None:
    """Raise DatasetError if a JSON file was cut short: then it does not end in a bracket."""
    with path.open("rb") as file:
        file.seek(-min(64, path.stat().st_size), os.SEEK_END)
        if not file.read().rstrip().endswith(b"}"):
            raise DatasetError(not_json(path, "it does not end in '}'"))


def _nothing_to_learn(names: Sequence[str]) -> str:
    return (
        f"The training data {', '.join(map(repr, names))} has no box to learn from, crowds not "
        "counted. To distil from images without labels, name them in dataloader.train.unlabeled "
        "beside labelled ones, or set dataloader.train.mapper.labeled=False."
    )
