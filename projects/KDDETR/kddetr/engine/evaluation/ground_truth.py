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
from pycocotools.coco import COCO

from ...errors import ConfigError
from .shapes import sound_keypoints, sound_outline
from .truth_sources import read_truth

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
        images, notes, self.classes, self._category_ids = read_truth(dataset_name)
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
            | {"image_id": self.number(detection["image_id"])}
            | {"category_id": self._class(detection) + 1}
            for detection in found
        ]

    def with_original_ids(self, found: Iterable[dict]) -> list[dict]:
        """Detections with a class from 0, with the id of that category in the data set instead."""
        return [d | {"category_id": self._category_ids[self._class(d)]} for d in found]

    def unseen(self, image_ids: Iterable[Hashable]) -> int:
        """How many images with objects are not among ``image_ids``."""
        seen = {self.number(image_id) for image_id in image_ids}
        return len({a["image_id"] for a in self.objects} - seen)

    def number(self, image_id: Hashable) -> int:
        """The number of the image with this id.

        Raises:
            ConfigError: the data set does not have such an image.
        """
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
    if outline := sound_outline(note.get("segmentation")):
        ours["segmentation"] = outline
    if points := sound_keypoints(note.get("keypoints")):
        ours["keypoints"] = points
        ours["num_keypoints"] = sum(visible > 0 for visible in points[2::3])
    return ours


def _leave_out_boxes_without_area(document: dict) -> None:
    """Mark boxes that no detection can find: without area inside their image, or so thin that the
    float32 numbers in which detections are given cannot say where they are.
    """
    notes = document["annotations"]
    unknown = {"width": np.inf, "height": np.inf}
    sizes = {image["id"]: unknown | image for image in document["images"]}
    edges = [[sizes[n["image_id"]][side] for side in ("width", "height")] for n in notes]
    boxes = np.array([note["bbox"] for note in notes], dtype=np.float64).reshape(-1, 4)
    low, sides = boxes[:, :2], boxes[:, 2:]
    inside = np.minimum(low + sides, np.reshape(edges, (-1, 2))) > np.maximum(low, 0)
    with np.errstate(over="ignore", invalid="ignore"):
        largest = np.maximum(np.abs(low), np.abs(low + sides)).max(axis=1, initial=0)
        step = np.spacing(largest.astype(np.float32)).astype(np.float64)  # of float32 numbers there
    found = (inside & (sides > 200 * step[:, None])).all(axis=1)
    for i in np.flatnonzero(~found):
        notes[i]["iscrowd"] = 1
        # A detection of it, somewhere within some steps, counts neither for nor against a detector.
        if np.isfinite(step[i]):
            x, y, w, h = notes[i]["bbox"]
            margin = 4 * float(step[i])
            notes[i]["bbox"] = [x - margin, y - margin, w + 2 * margin, h + 2 * margin]
