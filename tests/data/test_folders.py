"""Folders of images without labels: what is listed, and what is passed over."""

import logging
import os

import pytest
from PIL import Image

from kddetr.data import DatasetError, image_folder, load_image_folder, read_image
from kddetr.data.folders import image_suffixes


def listed(root) -> list[str]:
    found = load_image_folder(image_root=str(root))
    return [os.path.relpath(record["file_name"], root) for record in found]


def picture(path, kind="PNG"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), (9, 99, 199)).save(path, format=kind)


@pytest.mark.parametrize(
    ("suffix", "kind"),
    [
        (".jfif", "JPEG"),
        (".jpe", "JPEG"),
        (".JPG", "JPEG"),
        (".gif", "GIF"),
        (".tga", "TGA"),
        (".jp2", "JPEG2000"),
        (".pgm", "PPM"),
        (".webp", "WEBP"),
    ],
)
def test_every_kind_that_can_be_read_is_listed(tmp_path, suffix, kind):
    picture(tmp_path / f"a{suffix}", kind)
    (record,) = load_image_folder(image_root=str(tmp_path))
    assert read_image(record["file_name"]).shape == (4, 4, 3)


def test_kinds_that_pillow_cannot_read_are_not_listed():
    assert not image_suffixes() & {".pdf", ".mpg", ".mpeg", ".h5", ".grib", ".wmf", ".eps", ".txt"}


def test_what_is_passed_over_is_counted_with_examples(tmp_path, caplog):
    caplog.set_level(logging.WARNING, logger="kddetr")
    picture(tmp_path / "a.png")
    picture(tmp_path / ".hidden.png")
    assert listed(tmp_path) == ["a.png"] and not caplog.records
    (tmp_path / "notes.txt").write_text("")
    os.symlink("/nowhere.png", tmp_path / "b.png")
    assert listed(tmp_path) == ["a.png"]
    assert "2 of 3 files are passed over" in caplog.text
    assert "b.png" in caplog.text and "notes.txt" in caplog.text


def test_linked_folders_are_followed_once(tmp_path):
    root = tmp_path / "root"
    picture(root / "a.png")
    picture(tmp_path / "elsewhere/deep/b.png")
    os.symlink(tmp_path / "elsewhere", root / "linked")
    os.symlink(root, root / "loop")
    os.symlink(tmp_path / "elsewhere", root / "linked_again")
    os.symlink(root / "a.png", root / "c.png")
    assert listed(root) == ["a.png", "c.png", "linked/deep/b.png"]


def test_links_to_nowhere_alone_are_no_images(tmp_path):
    os.symlink("/nowhere.png", tmp_path / "b.png")
    with pytest.raises(DatasetError, match="holds no image"):
        listed(tmp_path)


def test_the_folder_of_a_config_node():
    assert image_folder({"_target_": load_image_folder, "image_root": "x"}) == "x"
    assert image_folder({"_target_": "kddetr.data.load_image_folder", "image_root": ""}) == ""
    assert image_folder({"_target_": dict, "image_root": "x"}) == image_folder(None) == ""
