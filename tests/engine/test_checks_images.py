"""The images that a config names are looked at before anything is built."""

import numpy as np
import pytest
from detectron2.config import LazyCall as L
from PIL import Image

from kddetr.data import DatasetError, DetectionMapper, load_image_folder
from kddetr.engine import check_config


@pytest.fixture
def cfg(toy, tmp_path, dataset):
    """A config that also names a folder of images of 16 bits, of which 12 are used."""
    cfg = toy.toy_config(tmp_path, dataset)
    (tmp_path / "dark").mkdir()
    pixels = np.random.default_rng(0).integers(0, 2**12, (8, 8)).astype(np.uint16)
    Image.fromarray(pixels).save(tmp_path / "dark/a.png")
    cfg.dataloader.train = {
        "dataset": cfg.dataloader.train.get("dataset"),
        "unlabeled": L(load_image_folder)(image_root=str(tmp_path / "dark")),
        "unlabeled_mapper": L(DetectionMapper)(is_train=True, labeled=False, augmentations=[]),
    }
    return cfg


def test_images_that_would_be_black_are_refused_with_the_key_that_helps(cfg):
    with pytest.raises(DatasetError, match=r"set dataloader\.train\.unlabeled_mapper\.bits=12"):
        check_config(cfg)
    cfg.dataloader.train.unlabeled_mapper.bits = 12
    check_config(cfg)
    del cfg.dataloader.train.unlabeled_mapper.bits
    check_config(cfg, training=False)


def test_a_folder_that_is_missing_or_broken_is_found_before_training(cfg, tmp_path):
    (tmp_path / "dark/a.png").write_bytes(b"no image")
    with pytest.raises(DatasetError, match=r"a\.png is truncated or broken"):
        check_config(cfg)
    cfg.dataloader.train.unlabeled.image_root = str(tmp_path / "gone")
    with pytest.raises(DatasetError, match="gone is not a folder"):
        check_config(cfg)
