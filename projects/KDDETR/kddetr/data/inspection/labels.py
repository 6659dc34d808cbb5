"""The labels of a split as arrays.

Shape letters: N boxes of the split, M images.
"""

from dataclasses import dataclass

import numpy as np

from ...errors import DatasetError
from ..coco import coco_records, read_coco_json
from ..images import upright_size
from ..layouts import Split
from .report import OddImage

SMALL, LARGE = 32.0, 96.0  # COCO's bounds between small, medium and large, as sides of a square


@dataclass(frozen=True)
class Labels:
    """The labels of a split.

    Attributes:
        split: its name.
        files: (M) paths of the images.
        records: (M) Detectron2's dataset dicts.
        image: (N,) index of the image of each box.
        label: (N,) index of its class.
        boxes: (N, 4) x, y, width, height in pixels.
        ignored: (N,) bool, crowds and boxes that say ignore.
        sizes: (M, 2) width and height of each image; NaN where it cannot be opened.
        where: the annotation file, for messages.
    """

    split: str
    files: list[str]
    records: list[dict]
    image: np.ndarray
    label: np.ndarray
    boxes: np.ndarray
    ignored: np.ndarray
    sizes: np.ndarray
    where: str

    @property
    def counted(self) -> np.ndarray:
        """(N,) bool: the boxes that are objects."""
        return ~self.ignored

    def scales(self, min_size: int, max_size: int) -> np.ndarray:
        """(M,) by how much the detector enlarges each image: see ``ResizeShortestEdge``; 1 where
        ``min_size`` is 0.
        """
        if not min_size:
            return np.ones(len(self.sizes))
        short, long = self.sizes.min(axis=1), self.sizes.max(axis=1)
        return np.minimum(min_size / short, max_size / long)

    def show(self, index: int, odd: np.ndarray | None = None) -> OddImage:
        """An image with its boxes.

        Args:
            index: of the image.
            odd: (N,) bool, the boxes of the split that are odd; None: none.
        """
        own = self.image == index
        marked = np.zeros(own.sum(), dtype=bool) if odd is None else odd[own]
        file = self.files[index]
        return OddImage(file, self.split, self.boxes[own], self.label[own], marked)


def read_labels(name: str, split: Split) -> Labels:
    """Read a split.

    Raises:
        DatasetError: the file cannot be read.
    """
    document = read_coco_json(split.json_file)
    records, *_ = coco_records(document, json_file=split.json_file, image_root=split.image_root)
    rows = [
        (i, note["category_id"], *note["bbox"], note["iscrowd"])
        for i, record in enumerate(records)
        for note in record.get("annotations", ())
    ]
    table = np.array(rows, dtype=np.float64).reshape(-1, 7)
    for record in records:
        if "width" not in record or "height" not in record:
            try:
                record["width"], record["height"] = upright_size(record["file_name"])
            except DatasetError:  # reported with the pixels
                record["width"] = record["height"] = float("nan")
    sizes = [(record["width"], record["height"]) for record in records]
    return Labels(
        name,
        [record["file_name"] for record in records],
        records,
        table[:, 0].astype(int),
        table[:, 1].astype(int),
        table[:, 2:6],
        table[:, 6] > 0,
        np.array(sizes, dtype=np.float64).reshape(-1, 2),
        split.json_file,
    )
