"""The checks before anything is built."""

import json
from pathlib import Path

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.data import (
    DatasetCatalog,
    MetadataCatalog,
    build_detection_test_loader,
    get_detection_dataset_dicts,
)

from kddetr.checkpoint import CheckpointError, load_pretrained
from kddetr.data import (
    DatasetError,
    DetectionMapper,
    ShortestEdge,
    build_train_loader,
    load_coco_format,
)
from kddetr.detectors import detectron2_detector
from kddetr.engine import (
    ConfigError,
    Trainer,
    check_config,
    check_launch,
    check_model,
    check_output_dir,
)
from tests.stock_models import tiny_faster_rcnn, tiny_retinanet


@pytest.fixture
def cfg(toy, tmp_path, dataset):
    cfg = toy.toy_config(tmp_path, dataset)
    cfg.dataloader.test = L(build_detection_test_loader)(
        dataset=L(get_detection_dataset_dicts)(names=dataset, filter_empty=False), num_workers=0
    )
    return cfg


def test_a_correct_config_passes(cfg):
    check_config(cfg)
    assert check_launch(cfg, 1).type == "cpu"


def test_unknown_data_set(cfg):
    cfg.dataloader.test.dataset.names = cfg.dataloader.evaluator.dataset_name = "engine_toyy"
    with pytest.raises(DatasetError, match="engine_toy"):
        check_config(cfg)


def test_training_data_without_a_box(cfg, tmp_path, dataset):
    metadata = MetadataCatalog.get(dataset)
    document = json.loads(Path(metadata.json_file).read_text()) | {"annotations": []}
    (tmp_path / "empty.json").write_text(json.dumps(document))
    paths = {"json_file": str(tmp_path / "empty.json"), "image_root": metadata.image_root}
    mapper = L(DetectionMapper)(is_train=True, augmentations=[], labeled=True)
    cfg.dataloader.train = {"dataset": L(load_coco_format)(**paths), "mapper": mapper}
    with pytest.raises(DatasetError, match="no box to learn from"):
        check_config(cfg)
    check_config(cfg, training=False)
    cfg.dataloader.train.mapper.labeled = False  # used only for distillation
    check_config(cfg)
    DatasetCatalog.pop(paths["json_file"])
    MetadataCatalog.pop(paths["json_file"])


def test_an_evaluator_with_another_data_set_is_refused(cfg):
    cfg.dataloader.evaluator.dataset_name = "coco_2017_val"
    with pytest.raises(ConfigError, match="name the same data sets"):
        check_config(cfg)


@pytest.mark.parametrize("num_classes", [2, 4])
def test_one_class_too_few_or_too_many(cfg, toy, num_classes):
    check_config(cfg)
    with pytest.raises(ConfigError, match=f"num_classes={num_classes}.* has 3 classes"):
        check_model(cfg, toy.ToyDetector(num_classes=num_classes))


def test_devices_and_precision(cfg):
    cfg.train.amp = {"enabled": True, "dtype": "float16"}
    with pytest.raises(ConfigError, match="float16 needs CUDA"):
        check_config(cfg)
    cfg.train.amp.enabled = False
    cfg.train.device = "tpu9"
    with pytest.raises(ConfigError, match="auto, cpu or cuda"):
        check_launch(cfg, 1)
    if not torch.cuda.is_available():
        cfg.train.device = "cuda"
        with pytest.raises(ConfigError, match="finds no CUDA"):
            check_launch(cfg, 1)


NO_MACHINE = r"--machine-rank {} is not from 0 to {}"


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ({"num_gpus": 0}, "--num-gpus 0 must be at least 1"),
        ({"num_machines": 0}, "--num-machines 0 must be at least 1"),
        ({"machine_rank": 1}, NO_MACHINE.format(1, 0)),
        ({"num_machines": 2, "machine_rank": 2}, NO_MACHINE.format(2, 1)),
        ({"num_machines": 2, "machine_rank": -1}, NO_MACHINE.format(-1, 1)),
        ({"num_gpus": 8}, r"--num-gpus 8.* no GPU .*train\.device=cpu"),
        ({"num_gpus": 8, "torchrun": True}, "--nproc-per-node 8"),
    ],
)
def test_numbers_of_processes_and_machines(cfg, monkeypatch, numbers, words):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    cfg.train.device = "auto"
    with pytest.raises(ConfigError, match=words):
        check_launch(cfg, **{"num_gpus": 1, **numbers})
    cfg.train.device = "cpu"  # said by the user
    assert check_launch(cfg, 8, num_machines=2, machine_rank=1).type == "cpu"


@pytest.mark.parametrize("loader", ["train", "test"])
def test_a_mapper_that_reads_bgr_is_refused(cfg, loader):
    """Detectron2's own configs have BGR; a detector here would convert the image once more."""
    node = L(DetectionMapper)(is_train=loader == "train", augmentations=[], image_format="BGR")
    cfg.dataloader[loader].mapper = node
    with pytest.raises(ConfigError, match=f"{loader}.mapper.image_format is BGR.*set it to RGB"):
        check_config(cfg)
    cfg.dataloader[loader].mapper.image_format = "RGB"
    check_config(cfg)


def test_a_warning_that_bfloat16_moves_regions(cfg, caplog):
    cfg.model, cfg.train.amp.enabled = "", True
    for stock, warned in ((tiny_faster_rcnn(), True), (tiny_retinanet(), False)):
        caplog.clear()
        check_model(cfg, detectron2_detector(stock))
        assert ("rounds the corners of regions" in caplog.text) is warned


def test_missing_files(cfg, toy):
    cfg.train.init_checkpoint = "nowhere.pth"
    with pytest.raises(
        CheckpointError, match=r"train\.init_checkpoint: The checkpoint nowhere\.pth does not"
    ):
        check_config(cfg)
    cfg.train.init_checkpoint = ""
    student = cfg.model
    cfg.model = L(toy.ToyDistiller)(
        student=student, teacher=L(load_pretrained)(model=student, checkpoint="")
    )
    with pytest.raises(ConfigError, match=r"model\.teacher\.checkpoint=FILE"):
        check_config(cfg)
    check_config(cfg, training=False)  # evaluating the student needs no teacher
    assert isinstance(Trainer.build_detector(cfg), toy.ToyDetector)


def test_a_new_run_overwrites_no_other(tmp_path):
    check_output_dir(str(tmp_path / "new"))
    torch.save({}, tmp_path / "model_0000001.pth")
    with pytest.raises(ConfigError, match="--resume"):
        check_output_dir(str(tmp_path))


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_mapper_out_of_range_is_found_before_training(cfg, part):
    node = L(DetectionMapper)(
        is_train=part == "train", augmentations=[L(ShortestEdge)(short_edge_length=[64, 0])]
    )
    cfg.dataloader[part].mapper = node
    with pytest.raises(
        ConfigError, match="short_edge_length must be a whole number of at least 1, not 0"
    ):
        check_config(cfg)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("mapper", "1e-3", "which cannot be called"),
        ("mapper", None, "which cannot be called"),
        ("dataset", {"names": "mine"}, "write it as a LazyCall"),
        (
            "unlabeled_mapper",
            L(DetectionMapper)(is_train=True, augmentations=[]),
            "labeled to False",
        ),
    ],
)
def test_parts_of_a_loader_that_cannot_be_used_are_found_before_training(
    cfg, dataset, key, value, words
):
    files = {k: MetadataCatalog.get(dataset).get(k) for k in ("json_file", "image_root")}
    node = L(load_coco_format)(**files, name=dataset)
    mapper = L(DetectionMapper)(is_train=True, augmentations=[])
    cfg.dataloader.train = L(build_train_loader)(dataset=node, mapper=mapper, total_batch_size=2)
    check_config(cfg)
    cfg.dataloader.train[key] = value
    with pytest.raises(ConfigError, match=rf"dataloader\.train\.{key} .*{words}"):
        check_config(cfg)


def test_pseudo_labels_are_read_by_the_mapper_of_unlabelled_images(cfg, dataset, tmp_path):
    """Their file needs boxes, and the classes of the labelled data."""
    files = {k: MetadataCatalog.get(dataset).get(k) for k in ("json_file", "image_root")}
    mapper = L(DetectionMapper)(is_train=True, augmentations=[], labeled=True)
    document = json.loads(Path(files["json_file"]).read_text())

    def written(name: str, **changes) -> dict:
        path = tmp_path / name
        path.write_text(json.dumps(document | changes))
        return L(load_coco_format)(json_file=str(path), image_root=files["image_root"])

    cfg.dataloader.train = L(build_train_loader)(
        dataset=L(load_coco_format)(**files, name=dataset),
        mapper=mapper,
        total_batch_size=2,
        unlabeled=written("pseudo.json"),
        unlabeled_mapper=mapper,
    )
    check_config(cfg)
    cfg.dataloader.train.unlabeled = written("none.json", annotations=[])
    with pytest.raises(DatasetError, match="no box to learn from"):
        check_config(cfg)
    others = [category | {"name": f"x{category['id']}"} for category in document["categories"]]
    cfg.dataloader.train.unlabeled = written("others.json", categories=others)
    with pytest.raises(DatasetError, match="have different classes"):
        check_config(cfg)
    cfg.dataloader.train.unlabeled.labeled = False
    with pytest.raises(ConfigError, match="labeled to False, or name a file with pseudo-labels"):
        check_config(cfg)


def test_training_data_without_their_boxes_need_a_mapper_that_needs_none(cfg, dataset):
    files = {k: MetadataCatalog.get(dataset).get(k) for k in ("json_file", "image_root")}
    node = L(load_coco_format)(**files, name=dataset, labeled=False)
    mapper = L(DetectionMapper)(is_train=True, augmentations=[], labeled=True)
    cfg.dataloader.train = L(build_train_loader)(dataset=node, mapper=mapper, total_batch_size=2)
    with pytest.raises(ConfigError, match=r"dataset\.labeled=False .*mapper\.labeled=False too"):
        check_config(cfg)
    cfg.dataloader.train.mapper.labeled = False
    check_config(cfg)
