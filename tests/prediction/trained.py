"""A checkpoint of a tiny detector with random weights and a model card."""

from pathlib import Path

import torch
from detectron2.config import LazyCall as L
from detectron2.data import get_detection_dataset_dicts
from omegaconf import DictConfig, OmegaConf
from torch import nn

from kddetr.checkpoint import Checkpointer
from kddetr.data import DetectionMapper, ShortestEdge, build_test_loader
from kddetr.detectors import TinyConvNet, dab_detr
from kddetr.engine import CocoEvaluator, Trainer, train_defaults
from kddetr.engine.card import run_card
from tests.engine.engine_toy import write_dataset

NAMES = ["one", "two", "three"]


def tiny_cfg(dataset: str) -> DictConfig:
    """A config of a tiny detector whose images are enlarged."""
    model = L(dab_detr)(
        backbone=L(TinyConvNet)(channels=[4, 6], blocks=[0, 0], norm="FrozenBN"),
        in_feature="stage1",
        num_classes=3,
        num_queries=6,
        embed_dim=16,
        num_heads=2,
        feedforward_dim=8,
        encoder_layers=1,
        decoder_layers=1,
        num_detections=10,
    )
    test = L(build_test_loader)(
        dataset=L(get_detection_dataset_dicts)(names=dataset, filter_empty=False),
        mapper=L(DetectionMapper)(
            is_train=False, augmentations=[L(ShortestEdge)(short_edge_length=48, max_size=80)]
        ),
        batch_size=4,
    )
    evaluator = L(CocoEvaluator)(dataset_name=dataset)
    loaders = {"test": test, "evaluator": evaluator}
    return OmegaConf.create(
        {"model": model, "dataloader": loaders, "train": train_defaults()},
        flags={"allow_objects": True},
    )


def save_trained(folder: Path) -> tuple[DictConfig, str, nn.Module]:
    """(the config, a checkpoint of its detector, the detector in evaluation mode)."""
    cfg = tiny_cfg(write_dataset(folder / "data"))
    torch.manual_seed(0)
    model = Trainer.build_detector(cfg)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    Checkpointer(model, str(folder), card=run_card(cfg, model, NAMES)).save_weights("student")
    return cfg, str(folder / "student.pth"), model.eval()
