"""Any recipe made so small that a step of it takes milliseconds, with all else as it is written."""

from pathlib import Path
from typing import Any

import torch
from detectron2.config import LazyCall as L
from detectron2.data import get_detection_dataset_dicts
from engine_toy import CLASSES
from omegaconf import DictConfig, OmegaConf

from kddetr.detectors import TinyConvNet, dab_detr, deformable_detr, dino
from kddetr.engine import build
from kddetr.engine.schema import call_parameters

STAGES = [f"stage{i}" for i in range(4)]
SMALL = {
    "width": 16,
    "heads": 4,
    "hidden": 24,
    "points": 2,
    "groups": 4,
    "encoder_layers": 1,
    "num_queries": 6,
    "num_detections": 10,
    "denoising_number": 3,
}


def tiny_config(cfg: DictConfig, folder: Path, dataset: str, **train: Any) -> DictConfig:
    """Shrink a config in place: its detectors, images and data, and two iterations.

    Args:
        cfg: any recipe.
        folder: for what is written; a teacher's random weights are saved there.
        dataset: registered, of `CLASSES` classes.
        train: further values of that section.
    """
    for node in _detectors(cfg.model):
        _shrink(node)
    for node in _calls(cfg.model):
        if "checkpoint" in node:
            node.model.decoder_layers = 3  # a teacher's depth is no matter of its student's
            node.checkpoint = str(folder / "teacher.pth")
            torch.manual_seed(0)
            torch.save({"model": build(node.model).state_dict()}, node.checkpoint)
    _shrink_images(cfg.dataloader)
    images = L(get_detection_dataset_dicts)(names=dataset, filter_empty=False)
    loaders = cfg.dataloader
    loaders.train.dataset, loaders.test.dataset, loaders.evaluator.dataset_name = (
        *(images, images),
        dataset,
    )
    loaders.train.num_workers = loaders.test.num_workers = 0
    loaders.train.unlabeled = images  # looked at before training even where it is not used
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
    """The calls inside a node, itself included."""
    if isinstance(node, DictConfig):
        inside = [call for key in node for call in _calls(node[key])]
        return [node, *inside] if "_target_" in node else inside
    return [call for item in node for call in _calls(item)] if OmegaConf.is_list(node) else []


def _detectors(node: DictConfig) -> list[DictConfig]:
    return [n for n in _calls(node) if n["_target_"] in (dab_detr, deformable_detr, dino)]


def _shrink(node: DictConfig) -> None:
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


def _shrink_images(dataloader: DictConfig) -> None:
    for call in _calls(dataloader):
        if "short_edge_length" in call:
            edges = call.short_edge_length
            call.short_edge_length = [32, 48] if OmegaConf.is_list(edges) else 32
            if call.get("max_size"):
                call.max_size = 64
        if "crop_size" in call:
            call.crop_size = [16, 24]
