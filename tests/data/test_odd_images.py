"""Image files of all kinds become RGB; files that cannot be used are named."""

import struct

import numpy as np
import pytest
from detectron2.data import detection_utils
from PIL import Image

from kddetr.data import (
    DatasetError,
    DetectionMapper,
    build_train_loader,
    load_coco_format,
    read_image,
)

pytestmark = pytest.mark.usefixtures("forget")
PIXELS = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "CMYK", "I;16"])
def test_every_kind_of_image_becomes_rgb(tmp_path, mode):
    path = tmp_path / ("odd.tif" if mode == "CMYK" else "odd.png")
    if mode == "I;16":
        Image.fromarray((PIXELS[:, :, 0].astype(np.uint16)) * 256).save(path)
    else:
        Image.fromarray(PIXELS).convert(mode).save(path)
    image = read_image(str(path))
    assert image.shape == (9, 12, 3) and image.dtype == np.uint8
    assert image.std() > 20


@pytest.mark.parametrize(("mode", "name"), [("CMYK", "a.jpg"), ("L", "a.jpg"), ("P", "a.gif")])
def test_lossy_files_keep_their_colours_closely(tmp_path, mode, name):
    smooth = Image.new("RGB", (16, 16), (200, 60, 20))
    smooth.convert(mode).save(tmp_path / name)
    wanted = np.array(smooth.convert(mode).convert("RGB"))
    assert np.abs(read_image(str(tmp_path / name)).astype(int) - wanted).max() <= 6


def test_alpha_is_dropped_and_the_colours_are_kept(tmp_path):
    alpha = np.concatenate([PIXELS, PIXELS[:, :, :1]], axis=2)
    Image.fromarray(alpha, "RGBA").save(tmp_path / "a.png")
    assert np.array_equal(read_image(str(tmp_path / "a.png")), PIXELS)


def test_sixteen_bit_pixels_keep_their_upper_eight_bits(tmp_path):
    deep = PIXELS[:, :, 0].astype(np.uint16) * 256 + 77
    for name in ("a.png", "a.tif"):
        Image.fromarray(deep).save(tmp_path / name)
        assert np.array_equal(read_image(str(tmp_path / name))[:, :, 1], PIXELS[:, :, 0])
    Image.fromarray(deep.astype(np.int32) + 2**16).save(tmp_path / "32.tif")
    assert read_image(str(tmp_path / "32.tif")).min() == 255  # clipped, not wrapped around


def test_floating_point_pixels_are_refused(tmp_path):
    """Pillow would silently make an image in [0, 1] black."""
    Image.fromarray(PIXELS[:, :, 0].astype(np.float32) / 255).save(tmp_path / "a.tif")
    with pytest.raises(DatasetError, match=r"a\.tif has floating-point pixels.*8 or 16 bits"):
        read_image(str(tmp_path / "a.tif"))


@pytest.mark.parametrize("content", [b"", b"no image at all", "half of it", "a folder"])
def test_a_broken_file_is_named(tmp_path, content):
    path = tmp_path / "a.png"
    if content == "a folder":
        path.mkdir()
    else:
        Image.fromarray(PIXELS).save(path)
        half = path.read_bytes()[: path.stat().st_size // 2]
        path.write_bytes(half if content == "half of it" else content)
    with pytest.raises(DatasetError, match=r"a\.png is truncated or broken"):
        read_image(str(path))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DatasetError, match=r"gone\.png does not exist"):
        read_image(str(tmp_path / "gone.png"))


def test_a_broken_image_ends_the_training_stream_with_its_name(paths, folder):
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


@pytest.mark.parametrize("size", [(41, 30), (30, 40)])
def test_another_size_in_the_annotation_file_is_refused(paths, edit, size):
    edit(lambda d: d["images"][0].update(width=size[0], height=size[1]))
    record = load_coco_format(**paths)[0]
    for train in (True, False):
        with pytest.raises(DatasetError, match=rf"0\.png is 40 x 30.*says {size[0]} x {size[1]}"):
            DetectionMapper(is_train=train, augmentations=[])(record)


def test_a_photo_on_its_side_is_rotated_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20)).save(tmp_path / "phone.jpg", exif=exif)
    assert read_image(str(tmp_path / "phone.jpg")).shape == (40, 20, 3)


@pytest.mark.parametrize("name", ["a.tif", "a.png", "a.webp"])
def test_every_kind_of_photo_is_rotated_once(tmp_path, name):
    """Pillow turns a TIFF by itself."""
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.zeros((20, 40, 3), dtype=np.uint8)
    pixels[:, :20] = 200
    Image.fromarray(pixels).save(tmp_path / name, exif=exif)
    image = read_image(str(tmp_path / name))
    assert image.shape == (40, 20, 3) and image[:15].mean() > 190 > 10 > image[25:].mean()


@pytest.mark.parametrize(
    ("tag", "kind", "value"),
    [(0x011A, 1, b"\x48"), (0x0132, 11, b"\0\0\xc0\x3f"), (0x0100, 9, b"\xfb\xff\xff\xff")],
    ids=["resolution as a byte", "date as a float", "negative width"],
)
def test_exif_entries_of_wrong_types_do_not_matter(tmp_path, tag, kind, value):
    entries = ((0x0112, 3, b"\6\0"), (tag, kind, value))
    raw = b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(entries))
    for entry, form, content in entries:
        raw += struct.pack("<HHI", entry, form, 1) + content.ljust(4, b"\0")
    path = str(tmp_path / "a.jpg")
    Image.new("RGB", (40, 20)).save(path, exif=raw + b"\0\0\0\0")
    assert read_image(path).shape == detection_utils.read_image(path, "RGB").shape == (40, 20, 3)


def test_the_size_of_a_photo_before_it_was_rotated_is_refused(paths, folder):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 30)).save(folder / "images/0.png", exif=exif)
    with pytest.raises(DatasetError, match=r"is 30 x 40.*EXIF.*says 40 x 30"):
        DetectionMapper(is_train=True, augmentations=[])(load_coco_format(**paths)[0])
