"""A complete config file of a distillation of a few thousand weights, and running it."""

import contextlib
import math
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.config import LazyConfig
from detectron2.engine import HookBase
from detectron2.evaluation.testing import flatten_results_dict
from engine_toy import CLASSES, write_dataset
from omegaconf import DictConfig, OmegaConf

from kddetr.engine import (
    Trainer,
    build,
    check_config,
    check_output_dir,
    load_config,
    require_sections,
)
from kddetr.engine.evaluation.sets import has_test_data
from kddetr.errors import DivergedError, UserError
from tests.fuzz.hunt import BrokenError
from tests.fuzz.perfect import registered_names, unregister

CONFIG = '''"""A student and a teacher of a few thousand weights."""

from copy import deepcopy

import torch
from detectron2.config import LazyCall as L
from detectron2.data import build_detection_test_loader

from kddetr import KDDETR
from kddetr.checkpoint import load_pretrained
from kddetr.data import (
    DetectionMapper,
    ShortestEdge,
    build_train_loader,
    load_coco_format,
    load_image_folder,
    register_coco_format,
)
from kddetr.detectors import TinyConvNet, deformable_detr
from kddetr.engine import CocoEvaluator, parameter_groups, step_schedule, train_defaults
from kddetr.losses import ForegroundWeight, GIoULoss, KLDivergence, L1Loss, WeightedMeanLoss
from kddetr.points import GeneralSampler, JointSampler, SpecificSampler

_detector = L(deformable_detr)(
    backbone=L(TinyConvNet)(channels=[4, 4, 6], blocks=[0, 0, 1], norm="FrozenBN"),
    num_classes=3,
    in_features=["stage2"],
    extra_levels=0,
    num_queries=6,
    variant="anchors",
    anchor_size=0.23,
    embed_dim=16,
    num_heads=4,
    feedforward_dim=24,
    encoder_layers=1,
    decoder_layers=1,
    dropout=0.0,
    groups=4,
    num_detections=10,
)
model = L(KDDETR)(
    student=_detector,
    teacher=L(load_pretrained)(model=deepcopy(_detector), checkpoint="FOLDER/teacher.pth"),
    sampler=L(JointSampler)(samplers=[L(GeneralSampler)(count=4), L(SpecificSampler)()]),
    loss=L(WeightedMeanLoss)(
        class_loss=L(KLDivergence)(weight=10.0, temperature=10.0),
        box_losses=[L(L1Loss)(weight=5.0), L(GIoULoss)(weight=2.0)],
        weighting=L(ForegroundWeight)(),
    ),
    weight=1.0,
)
optimizer = L(torch.optim.AdamW)(
    params=L(parameter_groups)(base_lr="${..lr}", lr_factors={"backbone": 0.1}),
    lr=1e-4,
    betas=[0.9, 0.999],
    weight_decay=1e-4,
)
lr_multiplier = L(step_schedule)(
    max_iter="${train.max_iter}", milestones=[0.8], gamma=0.1, warmup_iters=2
)
_data = {"json_file": "FOLDER/toy.json", "image_root": "FOLDER"}
dataloader = {
    "train": L(build_train_loader)(
        dataset=L(load_coco_format)(**_data),
        mapper=L(DetectionMapper)(
            is_train=True, augmentations=[L(ShortestEdge)(short_edge_length=[24, 32], max_size=48)]
        ),
        total_batch_size=2,
        num_workers=0,
        seed="${train.seed}",
        unlabeled=L(load_image_folder)(image_root="FOLDER"),
        unlabeled_mapper=L(DetectionMapper)(is_train=True, labeled=False, augmentations=[]),
        unlabeled_per_batch=1,
    ),
    "test": L(build_detection_test_loader)(
        dataset=L(load_coco_format)(**_data),
        mapper=L(DetectionMapper)(is_train=False, augmentations=[]),
        num_workers=0,
    ),
    "evaluator": L(CocoEvaluator)(dataset_name=L(register_coco_format)(**_data)),
}
train = train_defaults()
train["output_dir"] = "output"
train["device"] = "cpu"
train["max_iter"] = 40
train["batch_scaling"]["reference"] = 2
'''
# The least value that makes sense, by key; none of them may be null.
LEAST = {
    "optimizer.lr": 0,
    "optimizer.weight_decay": 0,
    "optimizer.params.lr_factors.backbone": 0,
    "lr_multiplier.gamma": 0,
    "model.weight": 0,
    "model.loss.class_loss.weight": 0,
    "model.loss.box_losses.0.weight": 0,
    "train.clip_grad.norm_type": 1e-9,
}


def write_small_run(folder: Path) -> str:
    """Write the config with its data and its teacher; returns the config's text."""
    write_dataset(folder, "fuzz_small")
    text = CONFIG.replace("FOLDER", str(folder))
    (folder / "small.py").write_text(text)
    torch.manual_seed(0)
    teacher = build(load_config(str(folder / "small.py")).model.teacher.model)
    assert teacher.num_classes == CLASSES
    torch.save({"model": teacher.state_dict()}, folder / "teacher.pth")
    return text


def values(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The dotted keys and values of everything in a plain tree, groups too."""
    pairs = enumerate(node) if isinstance(node, list) else node.items()
    for key, value in pairs:
        inner = f"{path}.{key}" if path else str(key)
        yield inner, value
        if isinstance(value, list | dict):
            yield from values(value, inner)


def values_of(file: Path) -> dict[str, Any]:
    """The values of a config that is right."""
    return dict(values(OmegaConf.to_container(load_config(str(file)), resolve=True)))


class _EnoughError(Exception):
    """Ends a training after its first step."""


class _OneStep(HookBase):
    def after_step(self) -> None:
        raise _EnoughError


def run(file: str, overrides: Sequence[str], right: dict[str, Any], *, save: bool = False) -> None:
    """Do what train_net.py does with a config, but for one step of the training only.

    It runs in the folder of the fixture ``here``, which is empty afterwards.

    Args:
        file, overrides: as on the command line.
        right: the values of the unchanged config, by their dotted keys.
        save: whether to save the config as well, and to load it again.

    Raises:
        UserError: it is refused before the training.
        BrokenError: it is accepted and used in a wrong way.
    """
    before = registered_names()
    try:
        cfg = load_config(file, overrides)
        require_sections(cfg, "model", "dataloader.train")
        check_config(cfg)
        check_output_dir(cfg.train.output_dir)
        trainer = Trainer(cfg)
        trainer.resume_or_load(resume=False)
        _check_values(cfg, right)
        if save:
            _check_saved(cfg)
        _train_and_test(trainer, cfg)
    finally:
        unregister(registered_names() - before)
        _tidy(Path.cwd())


def _tidy(here: Path) -> None:
    """Remove what a run has left in the current folder and beside it."""
    for file in (*here.parent.iterdir(), *here.iterdir()):
        if file.is_dir() and file != here:
            shutil.rmtree(file)
        elif file != here:
            file.unlink()


def _check_values(cfg: DictConfig, right: dict[str, Any]) -> None:
    found = dict(values(OmegaConf.to_container(cfg, resolve=True)))
    for key, value in right.items():
        if type(value) in (int, float) and type(found.get(key)) in (bool, str):
            raise BrokenError(f"a number was replaced by no number: {key}={found[key]!r}")
        if type(value) is bool and isinstance(found.get(key), str):
            raise BrokenError(f"a truth value was replaced by a text: {key}={found[key]!r}")
    for key, least in LEAST.items():
        value = found.get(key, least)
        number = isinstance(value, int | float) and value >= least  # NaN is not
        if key in right and not (number and (math.isfinite(value) or key.endswith("norm_type"))):
            raise BrokenError(f"a value out of its range was accepted: {key}={value!r}")


def _check_saved(cfg: DictConfig) -> None:
    """The config that a run saves is loaded again as it was."""
    file = Path("saved.yaml")
    LazyConfig.save(cfg, str(file))
    try:
        again = load_config(str(file))
    except UserError as error:
        raise BrokenError(f"a saved config cannot be loaded: {error}") from error
    saved = file.read_text()
    LazyConfig.save(again, str(file))
    if file.read_text() != saved:
        raise BrokenError(f"a saved config is loaded otherwise: {saved}\n{file.read_text()}")


def _train_and_test(trainer: Trainer, cfg: DictConfig) -> None:
    trainer.register_hooks([_OneStep()])
    try:
        with contextlib.suppress(_EnoughError):
            trainer.train()
        if not has_test_data(cfg):
            return
        results = flatten_results_dict(trainer.test(cfg, trainer.model))
    except DivergedError:
        return  # it can happen to a sound config
    except UserError as error:
        raise BrokenError(f"refused only after training began: {error}") from error
    if cfg.train.best_metric and cfg.train.best_metric not in results:
        raise BrokenError(f"a best metric that there is not: {cfg.train.best_metric}")
