"""The configs in configs/common/data: COCO, the user's own folder, and the bundled data."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from detectron2.config import LazyConfig, instantiate
from detectron2.data import MetadataCatalog
from PIL import Image

from kddetr.data import DatasetError, dataset_names
from kddetr.data.loader import seeded

CONFIGS = Path(__file__).parents[2] / "configs/common/data"


def _load(name, *overrides):
    cfg = LazyConfig.load(str(CONFIGS / f"{name}.py"))
    cfg.train = {"seed": 5}
    return LazyConfig.apply_overrides(cfg, list(overrides))


def test_coco_images_get_the_published_augmentation(tmp_path):
    path = tmp_path / "coco.png"
    Image.fromarray(np.zeros((426, 640, 3), dtype=np.uint8)).save(path)
    record = {"file_name": str(path), "annotations": []}
    cfg = _load("coco_detr").dataloader
    assert cfg.train.total_batch_size == 16
    sizes = set(range(480, 801, 32))
    for node in (cfg.train.mapper, cfg.train.unlabeled_mapper):
        mapper = instantiate(node)
        ratios = set()
        for i in range(24):
            with seeded(i):
                sample = mapper(record)
            height, width = sample["image"].shape[1:]
            assert min(height, width) in sizes or max(height, width) == 1333
            assert max(height, width) <= 1333
            ratios.add(round(width / height, 1))
            assert ("instances" in sample) == (node is cfg.train.mapper)
        assert 1.5 in ratios and len(ratios) > 3, "half of the images are cropped first"
    assert instantiate(cfg.test.mapper)(record)["image"].shape == (3, 800, 1202)


def test_coco_has_detectron2s_registered_names():
    cfg = _load("coco_detr").dataloader
    assert dataset_names(cfg.train.dataset) == ["coco_2017_train"]
    assert dataset_names(cfg.test.dataset) == dataset_names(cfg.evaluator.dataset_name)
    assert dataset_names(cfg.test.dataset) == ["coco_2017_val"]
    assert cfg.train.dataset.filter_empty is False


def test_an_own_folder_needs_overrides_only(folder, forget):
    paths = [f"json_file={folder}/instances.json", f"image_root={folder}/images"]
    cfg = _load(
        "custom",
        *(f"dataloader.{part}.dataset.{path}" for part in ("train", "test") for path in paths),
        f"dataloader.train.unlabeled.image_root={folder}/images",
        "dataloader.train.unlabeled_per_batch=2",
        "dataloader.train.total_batch_size=4",
        "dataloader.train.num_workers=0",
        "dataloader.test.num_workers=0",
    ).dataloader
    # As in the trainer: names are checked first, and the evaluator may be built before the loader.
    assert dataset_names(cfg.train.dataset) == dataset_names(cfg.evaluator.dataset_name)
    evaluator = instantiate(cfg.evaluator)
    iterator = iter(instantiate(cfg.train))
    batch = next(iterator)
    assert ["instances" in sample for sample in batch] == [True, True, False, False]
    assert [sample[0]["image_id"] for sample in instantiate(cfg.test)] == [0, 1, 2]
    assert MetadataCatalog.get(evaluator._metadata.name).thing_classes == ["early", "late"]


def test_an_own_folder_without_paths_raises_an_error_that_names_the_keys():
    with pytest.raises(DatasetError, match=r"dataloader\.train\.dataset\.json_file=FILE"):
        instantiate(_load("custom").dataloader.train)


def test_bundled_data_has_labelled_and_unlabelled_images(registered):
    cfg = _load("quickstart", "dataloader.train.unlabeled_per_batch=2").dataloader
    cfg.train.total_batch_size = 5
    assert dataset_names(cfg.evaluator.dataset_name) == dataset_names(cfg.test.dataset)
    (batch,) = itertools.islice(instantiate(cfg.train), 1)
    assert ["instances" in sample for sample in batch] == [True, True, True, False, False]
    assert all(sample["image"].shape == (3, 128, 128) for sample in batch)
    assert all(sample["image_id"] > 5 for sample in batch[3:])
    assert sum(map(len, instantiate(cfg.test))) == 4
    cfg.train.unlabeled_per_batch = 0
    instantiate(cfg.evaluator)
    assert len(instantiate(cfg.train).streams) == 1
