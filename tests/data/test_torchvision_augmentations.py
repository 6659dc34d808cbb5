"""Augmentations of torchvision inside of Detectron2's mapper."""

import numpy as np
import pytest
import torch
from detectron2.structures import BoxMode
from PIL import Image

from kddetr.data import DetectionMapper, IoUCrop, PhotometricDistort, ZoomOut
from kddetr.data.affine import move_boxes
from kddetr.data.torchvision_augmentations import CentredCrop

BOXES = np.array([[4.0, 6, 20, 26], [30, 2, 46, 30], [50, 20, 62, 38]])


@pytest.fixture
def record(tmp_path) -> dict:
    """A grey image with a bright rectangle in each box."""
    pixels = np.full((40, 64, 3), 90, dtype=np.uint8)
    for i, (x0, y0, x1, y1) in enumerate(BOXES.astype(int)):
        pixels[y0:y1, x0:x1] = 150 + 30 * i
    Image.fromarray(pixels).save(tmp_path / "image.png")
    boxes = [
        {"bbox": b, "bbox_mode": BoxMode.XYXY_ABS, "category_id": i} for i, b in enumerate(BOXES)
    ]
    return {"file_name": str(tmp_path / "image.png"), "image_id": 1, "annotations": boxes}


def mapped(record: dict, *augmentations, **options) -> dict:
    return DetectionMapper(is_train=True, augmentations=augmentations, **options)(record)


def test_boxes_and_pixels_move_together(record):
    """After zooming out and cropping, every box still holds its own rectangle alone."""
    seen, sizes = set(), set()
    for seed in range(40):
        torch.manual_seed(seed)
        found = mapped(record, ZoomOut(p=1.0), IoUCrop(p=1.0))
        sizes.add(tuple(found["image"].shape[1:]))
        instances = found["instances"]
        moved = move_boxes(found["affine"], BOXES)
        classes = instances.gt_classes.tolist()
        for box, number in zip(instances.gt_boxes.tensor, classes, strict=True):
            x0, y0, x1, y1 = box.round().int().tolist()
            assert set(found["image"][:, y0:y1, x0:x1].flatten().tolist()) == {150 + 30 * number}
            whole = torch.as_tensor(moved[number])
            centre = (whole[:2] + whole[2:]) / 2
            limit = torch.tensor(found["image"].shape[:0:-1])
            assert (centre > 0).all() and (centre < limit).all()
            seen.add(number)
    assert seen == {0, 1, 2} and len(sizes) > 20


def test_an_image_without_boxes_or_labels(record):
    empty = mapped(record | {"annotations": []}, IoUCrop(p=1.0))
    assert len(empty["instances"]) == 0 and empty["image"].shape == (3, 40, 64)
    unlabelled = mapped(record, IoUCrop(p=1.0), PhotometricDistort(1.0), labeled=False)
    assert "instances" not in unlabelled and unlabelled["image"].shape == (3, 40, 64)


def test_colours_change_and_boxes_do_not(record):
    torch.manual_seed(0)
    plain, first, second = mapped(record), *(mapped(record, PhotometricDistort()) for _ in "ab")
    assert first["image"].dtype == torch.uint8
    assert not torch.equal(first["image"], plain["image"])
    assert not torch.equal(first["image"], second["image"])
    for found in (first, second):
        assert torch.equal(found["instances"].gt_boxes.tensor, plain["instances"].gt_boxes.tensor)


def test_a_probability_of_0_changes_nothing(record):
    found = mapped(record, PhotometricDistort(0.0), ZoomOut(0.0), IoUCrop(0.0))
    assert torch.equal(found["image"], mapped(record)["image"])
    with pytest.raises(ValueError, match="from 0 to 1"):
        ZoomOut(p=2)


def test_a_centre_outside_of_the_crop():
    moved = CentredCrop(10, 0, 20, 40).apply_box(BOXES.copy())
    assert moved.tolist() == [[-6, 6, 10, 26], [0, 0, 0, 0], [0, 0, 0, 0]]
