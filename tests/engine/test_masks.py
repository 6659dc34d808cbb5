"""A Mask R-CNN trains its masks alone and with a teacher; distillation does not change how."""

import json

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.data import (
    DatasetCatalog,
    DatasetMapper,
    MetadataCatalog,
    build_detection_test_loader,
    get_detection_dataset_dicts,
)
from detectron2.data import transforms as T
from detectron2.data.datasets import register_coco_instances
from detectron2.data.detection_utils import annotations_to_instances
from detectron2.structures import PolygonMasks
from detectron2.utils.events import EventStorage
from omegaconf import DictConfig, OmegaConf

from kddetr import KDDETR
from kddetr.data import DetectionMapper, build_train_loader
from kddetr.detectors import RegionDetector
from kddetr.engine import (
    CocoEvaluator,
    Trainer,
    parameter_groups,
    step_schedule,
    train_defaults,
)
from kddetr.errors import UsageError
from kddetr.losses import WeightedMeanLoss
from kddetr.points import AtAnswers, SpecificSampler
from tests.stock_models import tiny_faster_rcnn
from tests.tiny import tiny_detector

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
NAME = "engine_polygons"


@pytest.fixture
def polygons(toy, tmp_path):
    """The toy images, with a polygon in each box."""
    toy.write_dataset(tmp_path / "data", "engine_boxes")
    document = json.loads((tmp_path / "data/toy.json").read_text())
    for thing in document["annotations"]:
        x, y, w, h = thing["bbox"]
        thing["segmentation"] = [[x, y, x + w, y, x + w / 2, y + h]]
    (tmp_path / "data/polygons.json").write_text(json.dumps(document))
    folder = str(tmp_path / "data")
    register_coco_instances(NAME, {}, f"{folder}/polygons.json", folder)
    yield NAME
    for name in (NAME, "engine_boxes"):
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def config(folder, model: DictConfig, **train) -> DictConfig:
    """A config for two steps of a model with a mask head, on the CPU."""
    images = L(get_detection_dataset_dicts)(names=NAME, filter_empty=True)
    mapper = L(DatasetMapper)(
        is_train=True,
        augmentations=[L(T.RandomFlip)()],
        image_format="RGB",
        use_instance_mask=True,
    )
    train = {"output_dir": str(folder), "device": "cpu", "max_iter": 2, "log_period": 1, **train}
    cfg = {
        "train": OmegaConf.merge(train_defaults(), train),
        "model": model,
        "optimizer": L(torch.optim.SGD)(params=L(parameter_groups)(base_lr="${..lr}"), lr=0.01),
        "lr_multiplier": L(step_schedule)(max_iter=2),
        "dataloader": {
            "train": L(build_train_loader)(
                dataset=images, mapper=mapper, total_batch_size=2, seed="${train.seed}"
            ),
            "test": L(build_detection_test_loader)(
                dataset=images,
                mapper=L(DetectionMapper)(is_train=False, augmentations=[]),
                num_workers=0,
            ),
            "evaluator": L(CocoEvaluator)(dataset_name=NAME, tasks=["bbox", "segm"]),
        },
    }
    return OmegaConf.create(cfg, flags={"allow_objects": True})


def alone() -> DictConfig:
    return L(RegionDetector)(stock=L(tiny_faster_rcnn)(mask=True))


def distilled(weight: float) -> DictConfig:
    return L(KDDETR)(
        student=alone(),
        teacher=L(tiny_detector)(family="dab_detr"),
        sampler=L(SpecificSampler)(),
        query_placement=L(AtAnswers)(),
        loss=L(WeightedMeanLoss)(),
        weight=weight,
    )


def trained(folder, model: DictConfig) -> tuple[dict, list[dict], dict]:
    """Weights of the stock model, losses of the steps, results of the last evaluation."""
    trainer = Trainer(config(folder, model))
    results = trainer.train()
    lines = [json.loads(x) for x in (folder / "metrics.json").read_text().splitlines()]
    steps = [{k: v for k, v in line.items() if "loss" in k} for line in lines if "loss_cls" in line]
    detector = getattr(trainer.model, "student", trainer.model)
    return detector.stock.state_dict(), steps, results


def test_distillation_leaves_the_mask_head_alone(polygons, tmp_path):
    before = tiny_faster_rcnn(mask=True).state_dict()
    plain, steps, results = trained(tmp_path / "alone", alone())
    masks = [name for name in plain if "mask_head" in name]
    assert masks and all(not torch.equal(plain[name], before[name]) for name in masks)
    assert len(steps) == 2 and all(step["loss_mask"] > 0 for step in steps)
    assert results.keys() == {"bbox", "segm"}
    # With weight 0 every number is that of the student trained alone.
    unweighted, same, _ = trained(tmp_path / "unweighted", distilled(0.0))
    assert same == steps
    assert all(torch.equal(plain[name], unweighted[name]) for name in plain)
    # Distillation changes the weights, and the mask loss only through them.
    taught, others, _ = trained(tmp_path / "taught", distilled(1.0))
    assert others[0]["loss_mask"] == steps[0]["loss_mask"]
    assert others[1]["loss_mask"] != steps[1]["loss_mask"]
    assert any(not torch.equal(plain[name], taught[name]) for name in plain)


def test_masks_reach_the_model_as_polygons(polygons, tmp_path):
    cfg = config(tmp_path, alone())
    batch = next(iter(Trainer.build_train_loader(cfg)))
    for image in batch:
        assert isinstance(image["instances"].gt_masks, PolygonMasks)
        assert image["image"].dtype == torch.uint8


def test_an_image_without_boxes_needs_no_masks(polygons, tmp_path):
    """Detectron2's mapper leaves the field ``gt_masks`` out for such an image."""
    stock = tiny_faster_rcnn(mask=True).train()
    model = RegionDetector(stock).train()
    cfg = config(tmp_path, alone())
    batch = next(iter(Trainer.build_train_loader(cfg)))
    height, width = batch[1]["image"].shape[1:]
    batch[1]["instances"] = annotations_to_instances([], (height, width))
    assert not batch[1]["instances"].has("gt_masks")
    with EventStorage():
        torch.manual_seed(0)
        expected = stock([x | {"image": x["image"].flip(0)} for x in batch])
        torch.manual_seed(0)
        found = model(batch)
    assert found.keys() == expected.keys() and expected["loss_mask"] > 0
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-6, atol=1e-7)


def test_a_mapper_without_masks_is_refused(polygons, tmp_path):
    cfg = config(tmp_path, alone())
    cfg.dataloader.train.mapper = L(DetectionMapper)(is_train=True, augmentations=[])
    with pytest.raises(UsageError, match=r"mapper to Detectron2's DatasetMapper"):
        Trainer(cfg).train()
