"""Images of every odd kind become RGB; sizes that are not the file's are a sentence."""

import numpy as np
import pytest
import torch
from PIL import Image

from kddetr.data import (
    DatasetError,
    DetectionMapper,
    build_train_loader,
    check_dataset,
    load_coco_format,
    load_image_folder,
    read_image,
    register_coco_format,
)

pytestmark = pytest.mark.usefixtures("forget")
PIXELS = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)


@pytest.mark.parametrize(("mode", "name"), [("CMYK", "a.jpg"), ("L", "a.jpg"), ("P", "a.gif")])
def test_kinds_that_lose_a_little_still_look_the_same(tmp_path, mode, name):
    smooth = Image.new("RGB", (16, 16), (200, 60, 20))
    smooth.convert(mode).save(tmp_path / name)
    wanted = np.array(smooth.convert(mode).convert("RGB"))
    assert np.abs(read_image(str(tmp_path / name)).astype(int) - wanted).max() <= 6


def test_alpha_is_left_out_and_the_colours_stay(tmp_path):
    alpha = np.concatenate([PIXELS, PIXELS[:, :, :1]], axis=2)
    Image.fromarray(alpha, "RGBA").save(tmp_path / "a.png")
    assert np.array_equal(read_image(str(tmp_path / "a.png")), PIXELS)


def test_sixteen_bits_keep_their_upper_half_in_every_container(tmp_path):
    deep = PIXELS[:, :, 0].astype(np.uint16) * 256 + 77
    for name in ("a.png", "a.tif"):
        Image.fromarray(deep).save(tmp_path / name)
        assert np.array_equal(read_image(str(tmp_path / name))[:, :, 1], PIXELS[:, :, 0])
    Image.fromarray(deep.astype(np.int32) + 2**16).save(tmp_path / "32.tif")
    assert read_image(str(tmp_path / "32.tif")).min() == 255  # too bright, not wrapped around


def test_floating_point_pixels_are_refused(tmp_path):
    """Pillow would make all of an image in [0, 1] black, and say nothing."""
    Image.fromarray(PIXELS[:, :, 0].astype(np.float32) / 255).save(tmp_path / "a.tif")
    with pytest.raises(DatasetError, match=r"a\.tif has floating-point pixels.*8 or 16 bits"):
        read_image(str(tmp_path / "a.tif"))


def test_a_folder_where_a_file_should_be(tmp_path):
    (tmp_path / "a.png").mkdir()
    with pytest.raises(DatasetError, match=r"a\.png is truncated or broken"):
        read_image(str(tmp_path / "a.png"))


def test_image_folder_lists_neither_folders_nor_hidden_files(tmp_path):
    for name in ("b.png", "._b.png", "folder.png/a.jpg", ".trash/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / name, format="PNG")
    found = [r["file_name"] for r in load_image_folder(image_root=str(tmp_path))]
    assert found == [str(tmp_path / "b.png"), str(tmp_path / "folder.png/a.jpg")]


@pytest.mark.parametrize("size", [(41, 30), (30, 40)])
def test_size_in_the_json_is_not_the_files(paths, edit, size):
    edit(lambda d: d["images"][0].update(width=size[0], height=size[1]))
    record = load_coco_format(**paths)[0]
    for train in (True, False):
        with pytest.raises(DatasetError, match=rf"0\.png is 40 x 30.*says {size[0]} x {size[1]}"):
            DetectionMapper(is_train=train, augmentations=[])(record)


def test_size_of_a_photo_before_it_was_turned(paths, folder):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 30)).save(folder / "images/0.png", exif=exif)
    with pytest.raises(DatasetError, match=r"is 30 x 40.*EXIF.*says 40 x 30"):
        DetectionMapper(is_train=True, augmentations=[])(load_coco_format(**paths)[0])


def test_every_missing_file_is_known_before_training(paths, folder):
    name = register_coco_format(**paths)
    (folder / "images/1.png").unlink()
    with pytest.raises(DatasetError, match=r"1\.png does not exist; is the image folder"):
        check_dataset(name)
    (folder / "images/2.png").unlink()
    with pytest.raises(DatasetError, match=r"1\.png and 1 more of its 3 images do not exist"):
        check_dataset(name)


def test_a_broken_image_ends_the_stream_with_its_name(paths, folder):
    for i in range(3):
        (folder / f"images/{i}.png").write_bytes(b"")
    loader = build_train_loader(
        dataset=load_coco_format(**paths),
        mapper=DetectionMapper(is_train=True, augmentations=[]),
        total_batch_size=1,
        seed=0,
    )
    with pytest.raises(DatasetError, match=r"\.png is truncated or broken"):
        next(iter(loader))


def test_too_few_images_for_a_batch_is_a_data_set_error(paths):
    mapper = DetectionMapper(is_train=True, augmentations=[])
    with pytest.raises(DatasetError, match="has only 3"):
        build_train_loader(dataset=load_coco_format(**paths), mapper=mapper, total_batch_size=4)


@pytest.mark.parametrize("size", [(1, 1), (12, 1), (1, 12), (4000, 3)])
def test_thin_image_as_a_training_and_as_a_test_sample(tmp_path, size):
    """With COCO's own augmentation: one pixel, enlarged, is many; 4000 x 3 stays thin."""
    from detectron2.data import transforms as T

    from kddetr.data import ShortestEdge

    Image.new("L", size, 9).save(tmp_path / "thin.png")
    notes = [{"bbox": [0, 0, *size], "bbox_mode": 1, "category_id": 0}]
    record = {"file_name": str(tmp_path / "thin.png"), "annotations": notes}
    resize = ShortestEdge([48, 64], 133)
    crop = [ShortestEdge([40, 50]), T.RandomCrop("absolute_range", (38, 60)), resize]
    for augmentations in ([T.RandomFlip(prob=1.0), resize], crop):
        sample = DetectionMapper(is_train=True, augmentations=augmentations)(record)
        assert (sample["width"], sample["height"]) == size
        assert sample["image"].dtype == torch.uint8 and max(sample["image"].shape) <= 134
        assert len(sample["instances"]) == 1
