"""Missing files are named, with the file that is meant where its name differs only in spelling."""

import os
import unicodedata

import pytest
from PIL import Image

from kddetr.data import DatasetError, check_dataset, register_coco_format
from kddetr.data.paths import is_address, similar_file
from tests.data.changes import put

pytestmark = pytest.mark.usefixtures("forget")
ACCENTED = unicodedata.normalize("NFC", "Ä é.png")


@pytest.fixture()
def pictures(folder):
    (folder / "images/Sub dir").mkdir()
    for name in (ACCENTED, "Sub dir/one.JPG"):
        Image.new("RGB", (40, 30)).save(folder / "images" / name)
    return folder / "images"


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("sub dir/one.jpg", "Sub dir/one.JPG"),
        ("Sub%20dir/one.JPG", "Sub dir/one.JPG"),
        ("Sub dir\\one.JPG", "Sub dir/one.JPG"),
        ("images/Sub dir/one.JPG", "Sub dir/one.JPG"),
        ("C:\\data\\images\\0.png", "0.png"),
        (unicodedata.normalize("NFD", ACCENTED), ACCENTED),
        (" 0.png", "0.png"),
    ],
)
def test_another_spelling_of_a_file_is_named(paths, edit, pictures, written, meant):
    edit(put("images", "file_name", written))
    with pytest.raises(DatasetError, match="correct the image folder or the file names") as error:
        check_dataset(register_coco_format(**paths))
    assert f"(did you mean {pictures / meant}?)" in str(error.value)


@pytest.mark.parametrize("written", ["9.png", "x/y/z.png", "", "\0", "a" * 300])
def test_nothing_is_suggested_where_nothing_is_alike(paths, edit, pictures, written):
    edit(put("images", "file_name", written))
    with pytest.raises(DatasetError, match="does not exist: correct"):
        check_dataset(register_coco_format(**paths))


def test_a_link_to_nowhere_is_missing(paths, folder):
    (folder / "images/1.png").unlink()
    os.symlink("/nowhere/1.png", folder / "images/1.png")
    with pytest.raises(DatasetError, match=r"1\.png is a link to /nowhere/1\.png, which does not"):
        check_dataset(register_coco_format(**paths))
    os.remove(folder / "images/1.png")
    os.symlink(folder / "images/0.png", folder / "images/1.png")
    check_dataset(register_coco_format(**paths))


@pytest.mark.parametrize("address", ["http://host/0.png", "s3://bucket/0.png"])
def test_an_address_in_a_file_is_below_the_image_folder(paths, edit, address):
    edit(put("images", "file_name", address))
    with pytest.raises(DatasetError, match=f"/images/{address} does not exist .did you mean"):
        check_dataset(register_coco_format(**paths))
    assert is_address(address) and not is_address(f"images/{address}")


def test_a_file_and_a_folder_that_are_exchanged_are_named(paths):
    with pytest.raises(DatasetError, match=r"the file .*/images is no file\. Correct the path"):
        check_dataset(register_coco_format(**paths | {"json_file": paths["image_root"]}))
    with pytest.raises(DatasetError, match=r"image folder .*\.json is no folder. Correct the path"):
        check_dataset(register_coco_format(**paths | {"image_root": paths["json_file"]}))


def test_a_folder_is_no_image(paths, folder):
    (folder / "images/1.png").unlink()
    (folder / "images/1.png").mkdir()
    with pytest.raises(DatasetError, match=r"1\.png does not exist"):
        check_dataset(register_coco_format(**paths))


def test_another_spelling_of_the_file_or_folder_is_named(paths, folder):
    with pytest.raises(DatasetError, match=r"Did you mean .*/instances\.json\?"):
        check_dataset(register_coco_format(**paths | {"json_file": f"{folder}/Instances.JSON"}))
    with pytest.raises(DatasetError, match=r"Did you mean .*/images\?"):
        check_dataset(register_coco_format(**paths | {"image_root": f"{folder}/IMAGES"}, name="n"))
    assert similar_file(str(folder / "nothing")) is None


@pytest.mark.parametrize("other", ["./0.png", "x/../0.png", "0.png"])
def test_a_file_listed_as_two_images_is_refused(paths, edit, other):
    edit(lambda d: d["images"][2].update(file_name=other))
    with pytest.raises(DatasetError, match=r"images 0 and 2 are the same file .*0\.png"):
        check_dataset(register_coco_format(**paths))


def test_a_broken_or_rotated_image_is_found_before_training(paths, folder):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 30)).save(folder / "images/0.png", exif=exif)
    name = register_coco_format(**paths)
    with pytest.raises(DatasetError, match=r"is 30 x 40.*EXIF.*says 40 x 30"):
        check_dataset(name)
    (folder / "images/0.png").write_bytes(b"no image")
    with pytest.raises(DatasetError, match=r"0\.png is truncated or broken"):
        check_dataset(name)
