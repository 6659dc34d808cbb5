"""The ground truth of a data set for COCO's metric, with ids that all its implementations read.

pycocotools takes the annotation id 0 for "no match", and the fast implementations read ids as
integers of 64 bits: of other ids they match nothing, or the wrong object. Here images, categories
and annotations are therefore numbered from 1 in memory, whatever ids the data set has.
"""

import contextlib
import io
from collections.abc import Hashable, Iterable
from typing import Any

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode, PolygonMasks
from pycocotools import mask as mask_util
from pycocotools.coco import COCO

from ..data.coco import coco_records, read_coco_json
from ..errors import ConfigError, DatasetError

# The parts of an annotation, besides its box, that COCO's metric reads.
_PARTS = ("segmentation", "keypoints")
LARGEST_AREA = 1e10  # square pixels; the metric leaves out larger objects


class GroundTruth:
    """The images, classes and objects of a registered data set.

    They come from its COCO file where it has one, and from its dataset dicts otherwise. An object
    that is neither to be found nor background has ``iscrowd`` 1: a crowd, a box with the flag
    ``ignore``, and a box that training leaves out because it has no area inside its image.

    Args:
        dataset_name: the registered name.

    Attributes:
        coco: the ground truth as pycocotools reads it; category number k + 1 is class k.
        classes: the class names, in the order of the classes.
        labeled: whether the data set has annotations at all, be they none.

    Raises:
        DatasetError: the data set cannot be read.
    """

    def __init__(self, dataset_name: str):
        self.name = dataset_name
        json_file = MetadataCatalog.get(dataset_name).get("json_file")
        if not json_file and dataset_name not in DatasetCatalog.list():
            raise DatasetError(
                f"No data set is registered as {dataset_name!r}: check the spelling."
            )
        read = _from_file(dataset_name, json_file) if json_file else _from_records(dataset_name)
        images, notes, self.classes, self._category_ids = read
        self.labeled = notes is not None
        self._numbers = {image["id"]: number for number, image in enumerate(images, 1)}
        document: dict[str, Any] = {
            "images": [image | {"id": self._numbers[image["id"]]} for image in images],
            "categories": [{"id": k + 1, "name": name} for k, name in enumerate(self.classes)],
        }
        if notes is not None:
            document["annotations"] = [
                _numbered(note, number, images=self._numbers)
                for number, note in enumerate(notes, 1)
            ]
            _leave_out_boxes_without_area(document)
        self.coco = indexed(document)

    @property
    def objects(self) -> list[dict]:
        """The annotations that a detector has to find."""
        return [a for a in self.coco.dataset.get("annotations", ()) if not a["iscrowd"]]

    def numbered(self, found: Iterable[dict]) -> list[dict]:
        """Detections, with the image's own id and a class from 0, as :attr:`coco` numbers them.

        Raises:
            ConfigError: the data set does not have such an image, or not so many classes.
        """
        return [
            detection
            | {"image_id": self._number(detection["image_id"])}
            | {"category_id": self._class(detection) + 1}
            for detection in found
        ]

    def with_original_ids(self, found: Iterable[dict]) -> list[dict]:
        """Detections with a class from 0, with the id of that category in the data set instead."""
        return [d | {"category_id": self._category_ids[self._class(d)]} for d in found]

    def unseen(self, image_ids: Iterable[Hashable]) -> int:
        """How many images with objects are not among ``image_ids``."""
        seen = {self._number(image_id) for image_id in image_ids}
        return len({a["image_id"] for a in self.objects} - seen)

    def _number(self, image_id: Hashable) -> int:
        if image_id not in self._numbers:
            raise ConfigError(
                f"The test images have one with the id {image_id!r}, which the data set"
                f" {self.name!r} of the evaluator does not have: name the same data set in"
                " dataloader.test and dataloader.evaluator."
            )
        return self._numbers[image_id]

    def _class(self, detection: dict) -> int:
        if detection["category_id"] >= len(self.classes):
            raise ConfigError(
                f"The model detects class {detection['category_id']}, counted from 0, but the data"
                f" set {self.name!r} has {len(self.classes)} classes: set num_classes to that."
            )
        return detection["category_id"]


def indexed(document: dict) -> COCO:
    """A parsed COCO document as the object of pycocotools."""
    coco = COCO()
    coco.dataset = document
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


# What both ways of reading return: images, annotations (None: there are none at all) with classes
# from 0 and the images' own ids, class names, and the id of each class's category.
_Read = tuple[list[dict], list[dict] | None, list[str], list[Any]]


def _from_file(name: str, json_file: str) -> _Read:
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


def _from_records(name: str) -> _Read:
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
    outline = note.get("segmentation")
    if isinstance(outline, dict):
        converted["area"] = float(mask_util.area(outline))
    elif outline:
        converted["area"] = float(PolygonMasks([outline]).area()[0])
    if "keypoints" in note:  # in COCO's form they are pixel indices, here places in the image
        shift = np.tile([0.5, 0.5, 0.0], len(note["keypoints"]) // 3)
        converted["keypoints"] = (np.asarray(note["keypoints"]) - shift).tolist()
    return converted


def _numbered(note: dict, number: int, *, images: dict[Hashable, int]) -> dict:
    """An annotation for the metric; its area is that of the box where the data set has none."""
    x, y, w, h = (float(value) for value in note["bbox"])
    area = note.get("area")
    ours = {
        "id": number,
        "image_id": images[note["image_id"]],
        "category_id": note["category_id"] + 1,
        "bbox": [x, y, w, h],
        "area": min(w * h if area is None else area, LARGEST_AREA),
        "iscrowd": int(bool(note.get("iscrowd") or note.get("ignore"))),
    }
    ours |= {part: note[part] for part in _PARTS if note.get(part)}
    if "keypoints" in ours:
        ours["num_keypoints"] = sum(visible > 0 for visible in ours["keypoints"][2::3])
    return ours


def _leave_out_boxes_without_area(document: dict) -> None:
    """Mark boxes that no detection can find: without area inside their image, or so thin that
    corners in float32, in which detections are given, cannot say where they are.
    """
    notes = document["annotations"]
    unknown = {"width": np.inf, "height": np.inf}
    sizes = {image["id"]: unknown | image for image in document["images"]}
    edges = [[sizes[n["image_id"]][side] for side in ("width", "height")] for n in notes]
    boxes = np.array([note["bbox"] for note in notes], dtype=np.float64).reshape(-1, 4)
    low, sides = boxes[:, :2], boxes[:, 2:]
    inside = np.minimum(low + sides, np.reshape(edges, (-1, 2))) > np.maximum(low, 0)
    rounded = (low + sides).astype(np.float32) - low.astype(np.float32)
    exact = np.abs(rounded - sides) < 0.01 * sides
    for note, can_be_found in zip(notes, (inside & exact).all(axis=1).tolist(), strict=True):
        note["iscrowd"] = note["iscrowd"] or int(not can_be_found)
