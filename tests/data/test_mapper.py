"""The mapper: boxes follow the augmentations, and what a box cannot be is left out."""

import numpy as np
import pytest
import torch
from detectron2.data import transforms as T
from detectron2.structures import BoxMode
from PIL import Image

from kddetr.data import DatasetError, DetectionMapper, ShortestEdge
from kddetr.data.affine import move_points
from kddetr.data.loader import seeded


def _record(path, boxes=(), **more):
    annotations = [
        {"bbox": list(b), "bbox_mode": BoxMode.XYWH_ABS, "category_id": i}
        for i, b in enumerate(boxes)
    ]
    return {"file_name": str(path), "image_id": 1, "annotations": annotations} | more


@pytest.fixture()
def photo(tmp_path):
    path = tmp_path / "photo.png"
    pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def test_a_training_sample_has_the_image_its_size_and_its_boxes(photo):
    mapper = DetectionMapper(is_train=True, augmentations=[ShortestEdge(120)])
    sample = mapper(_record(photo, [(10, 20, 30, 10)], width=80, height=60))
    assert sample["image"].dtype == torch.uint8 and sample["image"].shape == (3, 120, 160)
    assert (sample["height"], sample["width"]) == (60, 80)
    assert sample["instances"].image_size == (120, 160)
    assert sample["instances"].gt_boxes.tensor.tolist() == [[20, 40, 80, 60]]
    assert sample["instances"].gt_classes.tolist() == [0]
    assert "annotations" not in sample


def test_the_image_is_rgb_and_unchanged_without_augmentation(photo):
    sample = DetectionMapper(is_train=False, augmentations=[])(_record(photo))
    assert np.array_equal(sample["image"].permute(1, 2, 0).numpy(), np.array(Image.open(photo)))
    assert (sample["height"], sample["width"]) == (60, 80)


def test_boxes_are_flipped_with_the_image(photo):
    mapper = DetectionMapper(is_train=True, augmentations=[T.RandomFlip(prob=1.0)])
    sample = mapper(_record(photo, [(0, 5, 10, 20)]))
    assert sample["instances"].gt_boxes.tensor.tolist() == [[70, 5, 80, 25]]


@pytest.mark.parametrize(
    ("augmentation", "corner"),
    [
        (T.HFlipTransform(80), [79, 0]),
        (T.CropTransform(0, 10, 40, 30), [1, -10]),
        (T.ResizeTransform(60, 80, 120, 40), [0.5, 0]),
        (T.RotationTransform(60, 80, 90), [0, 79]),
        (T.PadTransform(3, 4, 5, 6), [4, 4]),
    ],
)
def test_where_a_pixel_of_the_file_lies_in_the_image(photo, augmentation, corner):
    sample = DetectionMapper(is_train=False, augmentations=[augmentation])(_record(photo))
    moved = move_points(sample["affine"], np.array([1.0, 0.0]))
    np.testing.assert_allclose(moved, corner, atol=1e-9)
    expected = T.TransformList([augmentation]).apply_coords(np.array([[7.0, 5.0]]))[0]
    np.testing.assert_allclose(move_points(sample["affine"], np.array([7.0, 5.0])), expected)


def test_boxes_are_clipped_and_empty_or_crowd_ones_left_out(photo):
    boxes = [(70, 50, 100, 100), (5, 5, 0, 9), (90, 10, 5, 5), (-5, -5, 10, 10), (9, 9, -3, 4)]
    record = _record(photo, [*boxes, (1, 1, 9, 9)])
    record["annotations"][-1]["iscrowd"] = 1
    instances = DetectionMapper(is_train=True, augmentations=[])(record)["instances"]
    assert instances.gt_boxes.tensor.tolist() == [[70, 50, 80, 60], [0, 0, 5, 5]]
    assert instances.gt_classes.tolist() == [0, 3]
    assert len(record["annotations"]) == 6


@pytest.mark.parametrize("augmentation", [T.RandomFlip(prob=1.0), T.Resize((60, 80))])
def test_boxes_of_negative_size_are_left_out_after_any_augmentation(photo, augmentation):
    mapper = DetectionMapper(is_train=True, augmentations=[augmentation])
    assert len(mapper(_record(photo, [(9, 9, -3, 4)]))["instances"]) == 0


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_box_that_is_not_finite_is_refused(photo, value):
    with pytest.raises(DatasetError, match=r"photo\.png has a box that is not finite"):
        DetectionMapper(is_train=True, augmentations=[])(_record(photo, [(value, 1, 2, 3)]))


def test_boxes_of_a_sample_lie_in_its_image_and_have_a_size(photo):
    """Through crop, flip and resize, with boxes outside the image, without size, and crowds."""
    rng = np.random.default_rng(0)
    boxes = np.hstack([rng.uniform(-90, 90, (50, 2)), rng.uniform(0, 90, (50, 2))]).round(-1)
    record = _record(photo, boxes.tolist())
    for i, note in enumerate(record["annotations"]):
        note["iscrowd"] = i % 2
    crop = [T.RandomFlip(), T.RandomCrop("absolute_range", (10, 20)), T.Resize((24, 32))]
    mapper = DetectionMapper(is_train=True, augmentations=crop, augmentations_with_crop=crop)
    for i in range(20):
        with seeded(i):
            found = mapper(record)["instances"]
        height, width = found.image_size
        x0, y0, x1, y1 = found.gt_boxes.tensor.unbind(1)
        assert (x0 >= 0).all() and (y0 >= 0).all() and (x1 <= width).all() and (y1 <= height).all()
        assert (x1 > x0).all() and (y1 > y0).all() and not (found.gt_classes % 2).any()


@pytest.mark.parametrize("key", ["augmentations", "augmentations_with_crop"])
def test_what_is_no_augmentation_is_refused(key):
    arguments = {"augmentations": [], key: [T.RandomFlip(), T.HFlipTransform(5)]}
    DetectionMapper(is_train=True, **arguments)
    for odd in (1, [1], T.RandomFlip, "flip"):
        with pytest.raises(ValueError, match="must be a list of Detectron2's augmentations, not"):
            DetectionMapper(is_train=True, **arguments | {key: [odd]})


def test_an_image_without_boxes_is_kept(photo):
    instances = DetectionMapper(is_train=True, augmentations=[])(_record(photo))["instances"]
    assert len(instances) == 0
    assert instances.gt_boxes.tensor.shape == (0, 4) and instances.gt_classes.dtype == torch.int64


def test_unlabelled_and_test_samples_have_no_instances(photo):
    record = _record(photo, [(1, 1, 9, 9)])
    for options in ({"is_train": True, "labeled": False}, {"is_train": False}):
        assert "instances" not in DetectionMapper(augmentations=[], **options)(record)
    del record["annotations"]
    assert DetectionMapper(is_train=True, labeled=False, augmentations=[])(record)["width"] == 80
    with pytest.raises(DatasetError, match="labeled=False"):
        DetectionMapper(is_train=True, augmentations=[])(record)


def test_half_of_the_training_images_are_cropped_and_no_test_image(photo):
    options = {
        "augmentations": [],
        "augmentations_with_crop": [T.RandomCrop("absolute_range", (20, 30))],
    }
    boxes = [(0, 0, 80, 60), (0, 0, 2, 2)]
    mapper = DetectionMapper(is_train=True, **options)
    cropped = 0
    for i in range(60):
        with seeded(1, i):
            sample = mapper(_record(photo, boxes))
        height, width = sample["image"].shape[1:]
        if (height, width) != (60, 80):
            cropped += 1
            assert 20 <= height <= 30 and 20 <= width <= 30
            assert sample["instances"].gt_boxes.tensor[0].tolist() == [0, 0, width, height]
    assert 18 < cropped < 42
    test = DetectionMapper(is_train=False, **options)
    assert all(test(_record(photo))["image"].shape == (3, 60, 80) for _ in range(10))


@pytest.mark.parametrize("size", [(700, 1), (1, 700), (3000, 1), (1, 1), (4000, 3), (400, 384)])
def test_thin_and_tiny_images_keep_at_least_a_pixel(tmp_path, size):
    """With COCO's augmentation; the box of the whole image survives it."""
    path = tmp_path / "thin.png"
    Image.new("RGB", size, (9, 9, 9)).save(path)
    resize = ShortestEdge([48, 80], 133)
    crop = [ShortestEdge([40, 60]), T.RandomCrop("absolute_range", (38, 60)), resize]
    for augmentations in ([T.RandomFlip(), resize], [T.RandomFlip(), *crop]):
        mapper = DetectionMapper(is_train=True, augmentations=augmentations)
        for i in range(3):
            with seeded(i):
                sample = mapper(_record(path, [(0, 0, *size)]))
            assert (sample["width"], sample["height"]) == size
            assert min(sample["image"].shape) >= 1 and max(sample["image"].shape) <= 134
            assert len(sample["instances"]) == 1


def test_kept_images_are_read_once_and_stay_as_they_were(photo):
    class Darken(T.Transform):
        def apply_image(self, image):
            image[:] = 0  # in place
            return image

        def apply_coords(self, coords):
            return coords

    record = _record(photo, [(10, 20, 30, 10)])
    plain = DetectionMapper(is_train=True, augmentations=[])(record)["image"]
    mapper = DetectionMapper(is_train=True, augmentations=[], keep_images=True)
    mapper(record)
    photo.unlink()
    mapper(record)["image"].zero_()
    assert torch.equal(mapper(record)["image"], plain)
    mapper.augmentations = T.AugmentationList([Darken()])
    assert not mapper(record)["image"].any()
    mapper.augmentations = T.AugmentationList([])
    assert torch.equal(mapper(record)["image"], plain)
