"""Detections drawn into an image of its full size."""

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances

from kddetr.visualization import draw_detections, side_by_side

NAMES = ["cat", "Übergröße"]


def found(boxes, size=(700, 900)):
    return Instances(
        size,
        pred_boxes=Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)),
        scores=torch.linspace(0.9, 0.5, len(boxes)),
        pred_classes=torch.arange(len(boxes)) % 2,
    )


def test_boxes_are_drawn_where_they_are_and_the_rest_is_left():
    image = np.full((700, 900, 3), 128, np.uint8)
    drawn = draw_detections(image, found([[200, 300, 400, 500]]), class_names=NAMES)
    assert drawn.shape == image.shape and (image == 128).all()
    changed = (drawn != image).any(-1)
    assert changed[300:500, 200].all() and changed[300, 200:400].all()
    assert not changed[320:480, 220:380].any()  # inside of the box
    assert not changed[:250].any() and not changed[:, 420:].any()
    np.testing.assert_array_equal(draw_detections(image, found([]), class_names=NAMES), image)


def test_odd_boxes_are_no_error():
    boxes = [[-50, -50, 2000, 900], [5, 5, 5, 5], [float("nan")] * 4, [899, 699, 900, 700]]
    image = np.zeros((700, 900, 3), np.uint8)
    drawn = draw_detections(image, found(boxes), class_names=NAMES, colours=[3, 13])
    assert drawn.any()
    with pytest.raises(ValueError, match="uint8 RGB"):
        draw_detections(image[..., 0], found([]), class_names=NAMES)


def test_small_images_are_enlarged_and_panels_are_joined():
    image = np.zeros((60, 100, 3), np.uint8)
    drawn = draw_detections(image, found([[0, 0, 50, 60]], (60, 100)), class_names=NAMES)
    assert drawn.shape == (360, 600, 3)
    joined = side_by_side({"student.pth": drawn, "a very long title " * 20: drawn})
    assert joined.shape[1] >= 1200 and joined.shape[0] > 360
    np.testing.assert_array_equal(joined[-360:, :600], drawn)
