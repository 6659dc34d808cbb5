"""Detections as a COCO file, which labelling programs open and this project trains with."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detectron2.structures import Instances

from ..checkpoint import atomic_write


class CocoJson:
    """A COCO file of images and of the detections in them, as annotations that have a score.

    Ids are counted from 1. The list ``annotations`` is what COCO calls a results file.

    Args:
        classes: their names in order.
        by: what has detected, for the entry ``info``.
    """

    def __init__(self, classes: Sequence[str], by: str):
        self._document: dict[str, Any] = {
            "info": {"description": f"Detections of {by}"},
            "categories": [{"id": i, "name": name} for i, name in enumerate(classes, 1)],
            "images": [],
            "annotations": [],
        }

    def add(self, name: str, found: Instances) -> None:
        """Add an image with its detections, in pixels of the upright image."""
        images, annotations = self._document["images"], self._document["annotations"]
        height, width = found.image_size
        image = {"id": len(images) + 1, "file_name": name, "height": height, "width": width}
        images.append(image)
        entries = (found.pred_boxes.tensor, found.scores, found.pred_classes)
        for box, score, number in zip(*(x.tolist() for x in entries), strict=True):
            x0, y0, x1, y1 = box
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image["id"],
                    "category_id": number + 1,
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "area": (x1 - x0) * (y1 - y0),
                    "iscrowd": 0,
                    "score": score,
                }
            )

    def write(self, file: Path) -> None:
        """Write the file, and make its folder.

        Raises:
            StorageError: it cannot be written.
        """
        file.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self._document, ensure_ascii=False)
        atomic_write(str(file), lambda stream: stream.write(text.encode()))
