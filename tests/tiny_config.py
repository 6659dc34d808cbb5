"""Shrinks a config so much that a step takes milliseconds, and changes nothing else in it."""

from pathlib import Path
from typing import Any

import torch
from detectron2.config import LazyCall as L
from detectron2.data import DatasetCatalog, MetadataCatalog, get_detection_dataset_dicts
from detectron2.modeling.backbone import ResNet
from detectron2.modeling.backbone.resnet import BasicBlock
from engine_toy import CLASSES
from omegaconf import DictConfig, OmegaConf

from kddetr.data import load_coco_format
from kddetr.detectors import (
    RegionDetector,
    TinyConvNet,
    dab_detr,
    deformable_detr,
    dino,
    huggingface_detector,
    model_zoo_detector,
)
from kddetr.engine import build
from kddetr.engine.config.calls import call_parameters
from kddetr.teachers import RecordedTeacher, Vocabulary
from tests.records import random_record
from tests.tiny_huggingface import SETTINGS

STAGES = [f"stage{i}" for i in range(4)]
SMALL = {
    "embed_dim": 16,
    "num_heads": 4,
    "feedforward_dim": 24,
    "num_sampling_points": 2,
    "groups": 4,
    "encoder_layers": 1,
    "num_queries": 6,
    "num_detections": 10,
    "denoising_number": 3,
}
# With random weights, pixels that are not normalised let the loss diverge.
STD = [57.375, 57.12, 58.395]
# A ResNet of the model zoo keeps its depth and gets a few channels.
SMALL_ZOO = [
    *("MODEL.RESNETS.STEM_OUT_CHANNELS", 4, "MODEL.RESNETS.RES2_OUT_CHANNELS", 8),
    *("MODEL.RESNETS.WIDTH_PER_GROUP", 4, "MODEL.FPN.OUT_CHANNELS", 8),
    *("MODEL.ROI_BOX_HEAD.FC_DIM", 8, "MODEL.PIXEL_STD", STD),
]


def tiny_config(cfg: DictConfig, folder: Path, dataset: str, **train: Any) -> DictConfig:
    """Shrink a config in place: its detectors, images and data, and two iterations.

    Args:
        cfg: any recipe.
        folder: for the output and for a teacher's random weights.
        dataset: a registered data set with ``CLASSES`` classes.
        train: further values of the section ``train``.
    """
    for node in _detectors(cfg.model):
        SHRINK[node["_target_"]](node)
    for node in _calls(cfg.model):
        if node["_target_"] is Vocabulary:
            node.classes = node.wanted = dataset
        if "checkpoint" in node:
            # Not the depth of its student.
            options = node.model.settings if "settings" in node.model else node.model
            options.decoder_layers = 3
            node.checkpoint = str(folder / "teacher.pth")
            torch.manual_seed(0)
            torch.save({"model": build(node.model).state_dict()}, node.checkpoint)
        if node["_target_"] is RecordedTeacher:
            files = DatasetCatalog.get(dataset)
            node.path = random_record(folder / "record", files, [4] * len(files), classes=CLASSES)
    _shrink_images(cfg.dataloader)
    images = L(get_detection_dataset_dicts)(names=dataset, filter_empty=False)
    loaders = cfg.dataloader
    loaders.train.dataset, loaders.test.dataset, loaders.evaluator.dataset_name = (
        *(images, images),
        dataset,
    )
    loaders.train.num_workers = loaders.test.num_workers = 0
    if loaders.train.unlabeled_mapper.labeled:
        files = {k: MetadataCatalog.get(dataset).get(k) for k in ("json_file", "image_root")}
        loaders.train.unlabeled = L(load_coco_format)(**files, name=dataset)
    else:
        loaders.train.unlabeled = images  # checked before training even where it is not used
    loaders.train.unlabeled_per_batch = min(loaders.train.unlabeled_per_batch, 1)
    loaders.train.total_batch_size = 2
    small = {
        "output_dir": str(folder / "run"),
        "device": "cpu",
        "init_checkpoint": "",
        "max_iter": 2,
        "log_period": 1,
    }
    cfg.train = OmegaConf.merge(cfg.train, small, train)
    cfg.lr_multiplier.warmup_iters = 0
    return cfg


def _calls(node: Any) -> list[DictConfig]:
    """The calls inside of a node, including itself."""
    if isinstance(node, DictConfig):
        inside = [call for key in node for call in _calls(node[key])]
        return [node, *inside] if "_target_" in node else inside
    return [call for item in node for call in _calls(item)] if OmegaConf.is_list(node) else []


def _detectors(node: DictConfig) -> list[DictConfig]:
    return [n for n in _calls(node) if n["_target_"] in SHRINK]


def _shrink_zoo(node: DictConfig) -> None:
    node.num_classes, node.overrides = CLASSES, SMALL_ZOO


def _shrink_rcnn(node: DictConfig) -> None:
    """An R-CNN on a feature pyramid, which has three stages in a quickstart config, else four."""
    node.num_queries = SMALL["num_queries"]
    stock, width = node.stock, SMALL["embed_dim"]
    stock.pixel_std = STD
    bottom = stock.backbone.bottom_up
    if not OmegaConf.is_list(bottom.stages):
        bottom.stem.out_channels, channels = 4, [4, 4, 6, 8, 10]
        bottom.stages = [
            L(ResNet.make_stage)(
                block_class=BasicBlock,
                num_blocks=1,
                stride_per_block=[2 if i else 1],
                in_channels=channels[i],
                out_channels=channels[i + 1],
                norm="FrozenBN",
            )
            for i in range(4)
        ]
    stock.backbone.out_channels = stock.proposal_generator.head.in_channels = width
    heads = stock.roi_heads
    heads.num_classes = CLASSES
    for head in heads.get("box_heads") or [heads.box_head]:
        head.input_shape.channels, head.fc_dims = width, [width, width]
    for predictor in heads.get("box_predictors") or [heads.box_predictor]:
        predictor.input_shape.channels = width


def _shrink_transformer(node: DictConfig) -> None:
    known = call_parameters(node["_target_"])
    node.update({key: value for key, value in SMALL.items() if key in known})
    node.num_classes, node.decoder_layers = CLASSES, 2
    if "in_feature" in known:
        levels, node.in_feature = 1, STAGES[-1]
    else:
        levels = len(node.get("in_features", "345"))
        node.in_features = STAGES[-levels:]
    node.backbone = L(TinyConvNet)(
        channels=[4, 4, 6, 8], blocks=[0, 0, 0, 1], out_features=STAGES[-levels:]
    )


def _shrink_huggingface(node: DictConfig) -> None:
    node.num_classes, node.image_size, node.settings = CLASSES, [64, 64], SETTINGS[node.model_type]
    node.train_sizes = [32, 64] if node.get("train_sizes") else []


SHRINK = {
    huggingface_detector: _shrink_huggingface,
    **dict.fromkeys((dab_detr, deformable_detr, dino), _shrink_transformer),
    RegionDetector: _shrink_rcnn,
    model_zoo_detector: _shrink_zoo,
}


def _shrink_images(dataloader: DictConfig) -> None:
    for call in _calls(dataloader):
        if "short_edge_length" in call:
            edges = call.short_edge_length
            call.short_edge_length = [32, 48] if OmegaConf.is_list(edges) else 32
            if call.get("max_size"):
                call.max_size = 64
        if "crop_size" in call:
            call.crop_size = [16, 24]
