"""The mapper that turns a dataset dict into a detector's input: an RGB image and its boxes.

Detectron2's own mapper lacks the second list of augmentations that DETR needs. In training it has
no option to ignore labels, and it turns a box of negative size into a valid one.
"""

from collections.abc import Sequence

import numpy as np
import torch
from detectron2.data import transforms as T
from detectron2.structures import Boxes, BoxMode, Instances

from ..errors import DatasetError
from ..ranges import whole
from .affine import AFFINE, affine_of
from .entries import is_left_out
from .images import check_size, read_image

MIN_SIDE = 1e-3  # pixels; a box that was clipped to nothing may have a side of a rounding error


class ShortestEdge(T.ResizeShortestEdge):
    """Detectron2's ``ResizeShortestEdge`` that never shrinks a very long image to zero pixels.

    Args:
        short_edge_length: the short side in pixels, drawn from this list.
        max_size: the long side in pixels is at most this; None for no limit.
    """

    def __init__(self, short_edge_length: int | Sequence[int], max_size: int | None = None):
        sizes = [short_edge_length] if isinstance(short_edge_length, int) else short_edge_length
        whole(1, short_edge_length=min(sizes, default=0), max_size=max_size or 1)
        unlimited = 2**31 - 1
        super().__init__([int(s) for s in sizes], max_size or unlimited, sample_style="choice")

    def get_transform(self, image: np.ndarray) -> T.Transform:
        """Draw a size and return the transform for ``image``, (H, W, ...)."""
        height, width = image.shape[:2]
        short = int(np.random.choice(self.short_edge_length))
        size = self.get_output_shape(height, width, short, self.max_size)
        return T.ResizeTransform(height, width, *(max(1, s) for s in size), self.interp)


class DetectionMapper:
    """Reads one image, augments it and converts it to a detector's input.

    Args:
        is_train: False leaves out the ground truth, even with ``labeled``.
        augmentations: transforms or augmentations of Detectron2, applied in order.
        augmentations_with_crop: a second list, which in training replaces the first one with
            probability 0.5 for each image; None: always the first.
        image_format: order of the channels. The detectors of this project read "RGB".
        labeled: False for images without labels: the result then has no ``instances``.
        bits: how many bits of 16-bit files are used, from 8 to 16, the same for all images of a
            data set; None: 16, or as many as a file itself states.
        keep_images: keep every image in memory after it was read and decoded for the first time,
            which takes H * W * 3 bytes an image in each loading process: for small data sets.

    Raises:
        ValueError: ``bits`` is out of range, or an augmentation is something else.
    """

    def __init__(
        self,
        *,
        is_train: bool,
        augmentations: Sequence,
        augmentations_with_crop: Sequence | None = None,
        image_format: str = "RGB",
        labeled: bool = True,
        bits: int | None = None,
        keep_images: bool = False,
    ):
        if bits is not None and (type(bits) is not int or not 8 <= bits <= 16):
            raise ValueError(f"bits must be a whole number from 8 to 16, or None, not {bits!r}.")
        for listed in (augmentations, augmentations_with_crop or ()):
            if odd := [x for x in listed if not isinstance(x, T.Augmentation | T.Transform)]:
                raise ValueError(
                    f"augmentations must be a list of Detectron2's augmentations, not {odd[0]!r}."
                )
        self.is_train = is_train
        self.augmentations = T.AugmentationList(list(augmentations))
        self.augmentations_with_crop = None
        if is_train and augmentations_with_crop is not None:
            self.augmentations_with_crop = T.AugmentationList(list(augmentations_with_crop))
        self.image_format = image_format
        self.labeled = labeled
        self.bits = bits
        self._images: dict[str, np.ndarray] | None = {} if keep_images else None

    def __call__(self, record: dict) -> dict:
        """Map a dataset dict.

        Returns:
            The dict without its annotations, with ``image`` (uint8, (3, H, W)), ``height`` and
            ``width`` of the file, ``affine``, which says where its pixels lie in ``image`` (see
            :func:`~kddetr.data.affine.affine_of`), and, if labelled and in training, ``instances``
            with ``gt_boxes`` (XYXY pixels of ``image``) and ``gt_classes``, possibly none.

        Raises:
            DatasetError: the file is missing, broken or of another size than in the dict, a box is
                not finite, or a labelled image has no ``annotations`` key.
        """
        image = self._read(record["file_name"])
        check_size(
            record["file_name"],
            image.shape[1::-1],
            (record.get("width", image.shape[1]), record.get("height", image.shape[0])),
        )
        return self.map_image(image, record)

    def map_image(self, image: np.ndarray, record: dict) -> dict:
        """Map an image that has been read, (H, W, 3) uint8, with its dataset dict; see
        :meth:`__call__`.
        """
        mapped = {k: v for k, v in record.items() if k != "annotations"}
        mapped["height"], mapped["width"] = image.shape[:2]
        augmentations = self.augmentations
        if self.augmentations_with_crop is not None and np.random.rand() < 0.5:
            augmentations = self.augmentations_with_crop
        truth = _truth(record) if self.is_train and self.labeled else None
        # Some augmentations look at the boxes; what they make of them is not used.
        augmented = T.AugInput(image, boxes=None if truth is None else truth[0].copy())
        transforms = augmentations(augmented)
        # A flipped view has negative strides, which torch refuses.
        pixels = np.ascontiguousarray(augmented.image.transpose(2, 0, 1))
        mapped["image"] = torch.from_numpy(pixels)
        mapped[AFFINE] = affine_of(transforms, mapped["width"], mapped["height"])
        if truth is not None:
            mapped["instances"] = _instances(truth, transforms, augmented.image.shape[:2])
        return mapped

    def _read(self, file_name: str) -> np.ndarray:
        """The pixels of a file; a copy where they are kept, as a transform may change them."""
        if self._images is None:
            return read_image(file_name, self.image_format, self.bits)
        if file_name not in self._images:
            self._images[file_name] = read_image(file_name, self.image_format, self.bits)
        return self._images[file_name].copy()


Truth = tuple[np.ndarray, np.ndarray]  # (N, 4) boxes XYXY in pixels of the file, (N,) classes


def _truth(record: dict) -> Truth:
    """The boxes and classes of a labelled image."""
    if "annotations" not in record:
        raise DatasetError(
            f"The image {record['file_name']} has no 'annotations': for images without labels use "
            "a mapper with labeled=False; an image that shows no object has an empty list."
        )
    kept = [a for a in record["annotations"] if not is_left_out(a)]
    boxes = [BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS) for a in kept]
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    if not np.isfinite(boxes).all():
        raise DatasetError(
            f"The image {record['file_name']} has a box that is not finite: correct the annotation."
        )
    return boxes, np.array([a["category_id"] for a in kept], dtype=np.int64)


def _instances(truth: Truth, transforms: T.TransformList, size: tuple[int, int]) -> Instances:
    boxes, classes = truth
    # Checked before the transforms, which would reorder the corners of a box of negative size.
    sized = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    boxes, inside = clipped(transforms.apply_box(boxes).reshape(-1, 4), size)
    inside &= sized
    return Instances(
        size,
        gt_boxes=Boxes(torch.from_numpy(boxes[inside].astype(np.float32))),
        gt_classes=torch.from_numpy(classes[inside]),
    )


def clipped(boxes: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Boxes cut at the edges of an image, and which of them are in the image at all.

    Args:
        boxes: (N, 4) XYXY in pixels.
        size: (height, width) of the image.

    Returns:
        (N, 4) boxes, and (N,) whether something is left of each.
    """
    height, width = size
    boxes = boxes.clip(min=0, max=[width, height, width, height])
    return boxes, (boxes[:, 2:] - boxes[:, :2] > MIN_SIDE).all(axis=1)
