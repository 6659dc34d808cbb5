"""The mapper: boxes follow the image, odd images pass, broken ones are named."""

import numpy as np
import pytest
import torch
from detectron2.data import transforms as T
from detectron2.structures import BoxMode
from PIL import Image

from kddetr.data import DatasetError, DetectionMapper, ShortestEdge
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


def test_training_sample(photo):
    mapper = DetectionMapper(is_train=True, augmentations=[ShortestEdge(120)])
    sample = mapper(_record(photo, [(10, 20, 30, 10)], width=80, height=60))
    assert sample["image"].dtype == torch.uint8 and sample["image"].shape == (3, 120, 160)
    assert (sample["height"], sample["width"]) == (60, 80)
    assert sample["instances"].image_size == (120, 160)
    assert sample["instances"].gt_boxes.tensor.tolist() == [[20, 40, 80, 60]]
    assert sample["instances"].gt_classes.tolist() == [0]
    assert "annotations" not in sample


def test_image_is_rgb_and_unchanged_without_augmentation(photo):
    sample = DetectionMapper(is_train=False, augmentations=[])(_record(photo))
    assert np.array_equal(sample["image"].permute(1, 2, 0).numpy(), np.array(Image.open(photo)))


def test_flip_takes_boxes_along(photo):
    mapper = DetectionMapper(is_train=True, augmentations=[T.RandomFlip(prob=1.0)])
    sample = mapper(_record(photo, [(0, 5, 10, 20)]))
    assert sample["instances"].gt_boxes.tensor.tolist() == [[70, 5, 80, 25]]


def test_boxes_are_clipped_and_empty_or_crowd_ones_dropped(photo):
    boxes = [(70, 50, 100, 100), (5, 5, 0, 9), (90, 10, 5, 5), (-5, -5, 10, 10), (9, 9, -3, 4)]
    record = _record(photo, [*boxes, (1, 1, 9, 9)])
    record["annotations"][-1]["iscrowd"] = 1
    instances = DetectionMapper(is_train=True, augmentations=[])(record)["instances"]
    assert instances.gt_boxes.tensor.tolist() == [[70, 50, 80, 60], [0, 0, 5, 5]]
    assert instances.gt_classes.tolist() == [0, 3]
    assert len(record["annotations"]) == 6


def test_image_without_boxes_is_kept(photo):
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


def test_crop_branch_is_taken_half_the_time_and_never_at_test(photo):
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


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "CMYK", "I;16"])
def test_every_kind_of_image_becomes_rgb(tmp_path, mode):
    path = tmp_path / ("odd.tif" if mode == "CMYK" else "odd.png")
    pixels = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    if mode == "I;16":
        Image.fromarray((pixels[:, :, 0].astype(np.uint16)) * 256).save(path)
    else:
        Image.fromarray(pixels).convert(mode).save(path)
    image = DetectionMapper(is_train=False, augmentations=[])(_record(path))["image"]
    assert image.shape == (3, 9, 12) and image.dtype == torch.uint8
    assert image.float().std() > 20


@pytest.mark.parametrize("size", [(700, 1), (1, 700), (3000, 1), (1, 1), (400, 384)])
def test_thin_and_tiny_images(tmp_path, size):
    path = tmp_path / "thin.png"
    Image.new("RGB", size, (9, 9, 9)).save(path)
    resize = ShortestEdge([48, 80], 133)
    crop = [
        T.RandomFlip(),
        ShortestEdge([40, 60]),
        T.RandomCrop("absolute_range", (38, 60)),
        resize,
    ]
    mapper = DetectionMapper(is_train=True, augmentations=[resize], augmentations_with_crop=crop)
    for i in range(6):
        with seeded(i):
            sample = mapper(_record(path, [(0, 0, *size)]))
        assert min(sample["image"].shape) >= 1 and max(sample["image"].shape) <= 134


def test_photo_lying_on_its_side_is_turned(tmp_path):
    path = tmp_path / "phone.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20)).save(path, exif=exif)
    sample = DetectionMapper(is_train=False, augmentations=[])(_record(path))
    assert sample["image"].shape == (3, 40, 20) and sample["height"] == 40


@pytest.mark.parametrize("content", [b"", b"no image at all", None])
def test_broken_file_is_named(photo, content):
    data = photo.read_bytes()
    photo.write_bytes(data[: len(data) // 2] if content is None else content)
    with pytest.raises(DatasetError, match=r"photo\.png.*(truncated|broken)"):
        DetectionMapper(is_train=True, augmentations=[])(_record(photo))


def test_missing_file_is_named(tmp_path):
    with pytest.raises(DatasetError, match=r"gone\.png does not exist"):
        DetectionMapper(is_train=True, augmentations=[])(_record(tmp_path / "gone.png"))
