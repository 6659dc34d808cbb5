"""Images of 16 bits of which fewer are used: one scale for a data set, or a sentence."""

import numpy as np
import pytest
from PIL import Image

from kddetr.data import (
    DatasetError,
    DetectionMapper,
    check_dataset,
    check_pixels,
    load_coco_format,
    read_image,
)
from kddetr.data.images import check_bits

pytestmark = pytest.mark.usefixtures("forget")
KEY = "dataloader.train.mapper.bits"


def save(path, used: int, seed: int = 0) -> np.ndarray:
    """Save a grey image of 16 bits that uses the lowest ``used`` of them."""
    pixels = np.random.default_rng(seed).integers(0, 2**used, (30, 40)).astype(np.uint16)
    pixels[0, 0] = 2**used - 1
    Image.fromarray(pixels).save(path)
    return pixels


@pytest.mark.parametrize("bits", [8, 12, 14, 16])
@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_the_upper_eight_of_the_used_bits_are_read(tmp_path, bits, name):
    pixels = save(tmp_path / name, bits)
    wanted = (pixels >> (bits - 8)).astype(np.uint8)
    mapper = DetectionMapper(is_train=False, augmentations=[], bits=bits)
    image = mapper({"file_name": str(tmp_path / name)})["image"].numpy()
    assert (image == wanted).all() and image.max() == 255


@pytest.mark.parametrize("used", [8, 10, 12, 14])
def test_images_that_would_be_dark_are_refused_before_training(paths, folder, used):
    for i in range(3):
        save(folder / f"images/{i}.png", used, seed=i)
    load_coco_format(**paths)
    name = paths["json_file"]
    check_dataset(name, for_training=True)
    for bits in (None, used - 1):
        if bits != 7:
            with pytest.raises(DatasetError, match=rf"use {used} bits.*set {KEY}={used}"):
                check_pixels([name], bits, KEY)
    check_pixels([name], used, KEY)
    check_pixels([name], 16, KEY)  # said by the user
    with pytest.raises(DatasetError, match=f"use {used} bits"):
        check_pixels([], None, KEY, folder=paths["image_root"])


def test_one_dark_image_among_others_is_no_fault(tmp_path):
    for name, used in (("a.png", 9), ("b.png", 16), ("c.png", 11)):
        save(tmp_path / name, used)
    Image.new("L", (4, 4)).save(tmp_path / "d.png")
    check_bits(sorted(map(str, tmp_path.iterdir())), None, KEY)


def test_images_of_eight_bits_are_no_fault_however_dark(tmp_path):
    for mode in ("L", "RGB", "P", "1"):
        Image.new(mode, (4, 4)).save(tmp_path / f"{mode}.png")
    check_bits(sorted(map(str, tmp_path.iterdir())), None, KEY)
    check_bits([], None, KEY)


def test_colours_of_16_bits_that_use_12_are_refused(tmp_path):
    """Pillow reads their upper 8 bits only, so no scale can make them bright."""
    cv2 = pytest.importorskip("cv2")
    file = str(tmp_path / "a.png")
    for used, brightest in ((16, 255), (12, 15)):
        pixels = np.random.default_rng(0).integers(0, 2**used, (9, 12, 3)).astype(np.uint16)
        assert cv2.imwrite(file, pixels)
        assert read_image(file).max() == brightest
    with pytest.raises(DatasetError, match=r"use 12 bits.*colours have to be saved with 8 bits"):
        check_bits([file], None, KEY)
    with pytest.raises(DatasetError, match=r"a\.png has colours of 16 bits.*save it with 8 bits"):
        read_image(file, bits=12)


def test_a_tiff_that_states_12_bits_is_read_as_it_states(tmp_path):
    """Two pixels of 12 bits, 4095 and 1024, are packed into three bytes."""
    entries = [(256, 3, 2), (257, 3, 1), (258, 3, 12), (259, 3, 1), (262, 3, 1), (273, 4, 134)]
    entries += [(277, 3, 1), (278, 3, 1), (279, 4, 3)]
    raw = b"II*\0" + (8).to_bytes(4, "little") + len(entries).to_bytes(2, "little")
    for tag, kind, value in entries:
        raw += b"".join(v.to_bytes(n, "little") for v, n in ((tag, 2), (kind, 2), (1, 4)))
        raw += value.to_bytes(4, "little")
    raw = raw.ljust(134, b"\0") + bytes([0xFF, 0xF4, 0x00])
    (tmp_path / "a.tif").write_bytes(raw)
    file = str(tmp_path / "a.tif")
    assert read_image(file)[0, :, 0].tolist() == [255, 64]
    check_bits([file], None, KEY)


def test_more_bits_and_fractions_are_refused_before_training(paths, folder):
    file = folder / "images/0.tif"
    Image.fromarray(np.full((30, 40), 2**18, dtype=np.int32)).save(file)
    with pytest.raises(DatasetError, match=r"use 19 bits.*too bright: save them with 16 bits"):
        check_bits([str(file)], None, KEY)
    Image.fromarray(np.zeros((30, 40), dtype=np.float32)).save(folder / "images/0.png", "TIFF")
    load_coco_format(**paths)
    with pytest.raises(DatasetError, match=r"0\.png has floating-point pixels"):
        check_dataset(paths["json_file"])


@pytest.mark.parametrize("bits", [7, 17, 12.0, True, "12"])
def test_bits_out_of_range_are_refused(bits):
    with pytest.raises(ValueError, match="bits must be a whole number from 8 to 16"):
        DetectionMapper(is_train=True, augmentations=[], bits=bits)
