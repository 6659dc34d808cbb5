"""Reading the ground truth of a registered data set, with the ids that it has."""

from typing import Any

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import COCOEvaluator
from detectron2.structures import BoxMode

from ...data.coco import coco_records, read_coco_json
from ...errors import ConfigError, DatasetError
from .arguments import compiled_coco
from .shapes import outline_area, sound_keypoints, sound_outline

# Images; annotations with the images' own ids and classes from 0, None where there are none at all;
# class names; and the id of the category of each class.
Truth = tuple[list[dict], list[dict] | None, list[str], list[Any]]


def read_truth(name: str) -> Truth:
    """The ground truth of a registered data set, from its COCO file where it has one.

    Raises:
        DatasetError: the data set is not registered, or cannot be read.
    """
    json_file = MetadataCatalog.get(name).get("json_file")
    if json_file:
        return _from_file(name, json_file)
    if name not in DatasetCatalog.list():
        raise DatasetError(f"No data set is registered as {name!r}: check the spelling.")
    return _from_records(name)


def check_for_detectron2(evaluator: COCOEvaluator) -> None:
    """Raise a ConfigError where the COCOEvaluator of Detectron2 itself would misread a file, and
    give a wrong AP or a traceback, or where this install cannot run it.
    """
    if evaluator._use_fast_impl and compiled_coco() is None:
        raise ConfigError(
            "Detectron2's COCOEvaluator needs Detectron2's compiled operators, which are not"
            " installed: set dataloader.evaluator.use_fast_impl=False in your config file, or take"
            " kddetr.engine.CocoEvaluator as dataloader.evaluator."
        )
    json_file = evaluator._metadata.get("json_file")
    document = read_coco_json(json_file) if json_file else {}
    notes = document.get("annotations", [])
    ids = [entry["id"] for kind in ("images", "categories") for entry in document.get(kind, ())]
    note_ids = [note.get("id") for note in notes]
    plain = all(type(value) is int and 0 <= value < 2**63 for value in [*ids, *note_ids])
    plain = plain and len(set(note_ids)) == len(notes) and 0 not in note_ids
    if not plain or any(not {"area", "iscrowd"} <= n.keys() or n.get("ignore") for n in notes):
        raise ConfigError(
            f"Detectron2's COCOEvaluator would misread {json_file}: it needs area and iscrowd, no"
            " ignore, and distinct integers above 0 as ids; take kddetr.engine.CocoEvaluator as"
            " dataloader.evaluator, which does not."
        )


def _from_file(name: str, json_file: str) -> Truth:
    document, metadata = read_coco_json(json_file), MetadataCatalog.get(name)
    _, classes, id_map = coco_records(document, json_file=str(json_file), image_root="")
    # A program that registers a data set may give several categories of the file one class.
    id_map = metadata.get("thing_dataset_id_to_contiguous_id") or id_map
    classes = list(metadata.get("thing_classes") or classes)
    unknown = [c["id"] for c in document["categories"] if id_map.get(c["id"], -1) < 0]
    if unknown or max(id_map.values(), default=0) >= max(1, len(classes)):
        raise DatasetError(
            f"The classes that are registered for {name!r} are not those of {json_file}: register"
            " the data set under another name."
        )
    notes = document.get("annotations")
    if notes is not None:
        notes = [note | {"category_id": id_map[note["category_id"]]} for note in notes]
    images = [_with_size({"id": image["id"]}, image) for image in document["images"]]
    return images, notes, classes, _category_ids(id_map, len(classes))


def _from_records(name: str) -> Truth:
    records, metadata = DatasetCatalog.get(name), MetadataCatalog.get(name)
    classes = metadata.get("thing_classes")
    if classes is None:
        raise DatasetError(
            f"The data set {name!r} has no class names: set MetadataCatalog.get({name!r})"
            ".thing_classes."
        )
    labeled = any("annotations" in record for record in records)
    images, notes = [], []
    for record in records:
        if "image_id" not in record:
            raise DatasetError(
                f"The data set {name!r}: the image {record.get('file_name')} has no image_id: give"
                " each image its own."
            )
        images.append(_with_size({"id": record["image_id"]}, record))
        for note in record.get("annotations", ()):
            notes.append(_from_detectron2(note) | {"image_id": record["image_id"]})
    id_map = metadata.get("thing_dataset_id_to_contiguous_id") or {}
    return images, notes if labeled else None, list(classes), _category_ids(id_map, len(classes))


def _with_size(image: dict, source: dict) -> dict:
    return image | {k: source[k] for k in ("height", "width") if source.get(k) is not None}


def _category_ids(id_map: dict[Any, int], count: int) -> list[Any]:
    """The id of the category of each class; of several categories the first."""
    first = {index: category_id for category_id, index in reversed(id_map.items())}
    return [first.get(index, index) for index in range(count)]


def _from_detectron2(note: dict) -> dict:
    """An annotation of a dataset dict in COCO's form."""
    box = np.asarray(note["bbox"], dtype=np.float64).tolist()
    converted = note | {"bbox": BoxMode.convert(box, note["bbox_mode"], BoxMode.XYWH_ABS)}
    converted["category_id"] = int(note["category_id"])
    if outline := sound_outline(note.get("segmentation")):
        converted["area"] = outline_area(outline)
    if points := sound_keypoints(note.get("keypoints")):
        # In COCO's form they are pixel indices, here places in the image.
        shift = np.tile([0.5, 0.5, 0.0], len(points) // 3)
        converted["keypoints"] = (np.asarray(points) - shift).tolist()
    return converted
