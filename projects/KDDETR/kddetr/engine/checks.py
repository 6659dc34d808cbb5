"""Checks before training or evaluation starts: devices, files and data sets.

They need no model; :func:`kddetr.engine.check_model` is for the model before its first iteration.
"""

import logging
import os
import tempfile
from typing import Any

import torch
from detectron2.data import build_detection_test_loader, build_detection_train_loader
from omegaconf import DictConfig, OmegaConf

from ..checkpoint import local_file, whole_checkpoints
from ..data import (
    build_test_loader,
    build_train_loader,
    check_dataset,
    check_pixels,
    check_same_classes,
    image_folder,
    load_coco_format,
    warn_of_shared_images,
)
from ..errors import CheckpointError, ConfigError
from .config.calls import located, needs_no_teacher, walk
from .config.load import build
from .evaluation.sets import check_evaluation, evaluation_sets, has_test_data, names_in
from .loggers import check_loggers
from .precision import check_precision
from .progress import wants_display

_log = logging.getLogger(__name__)
_LOADERS = (
    build_train_loader,
    build_test_loader,
    build_detection_train_loader,
    build_detection_test_loader,
)


def resolve_device(name: str, key: str = "train.device") -> torch.device:
    """The device of a name; "auto" is CUDA where available, otherwise the CPU.

    Args:
        name: auto, cpu or cuda.
        key: the config key or argument that has the name, for messages.

    Raises:
        ConfigError: an unknown device, or one that this machine does not have.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise ConfigError(f"{key} must be auto, cpu or cuda, not '{name}'.")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"{key}={name}, but PyTorch finds no CUDA device: use {key}=cpu or auto.")
    return device


def check_launch(
    cfg: DictConfig,
    num_gpus: int,
    *,
    num_machines: int = 1,
    machine_rank: int = 0,
    torchrun: bool = False,
) -> torch.device:
    """Check that a job can run in ``num_gpus`` processes on this machine; returns the device.

    ``torchrun`` says whether torchrun has started the ``num_gpus`` processes already.

    Raises:
        ConfigError: there is no such device, or too few of them, a number is below 1, or there is
            no machine of that rank.
    """
    device = resolve_device(cfg.train.device)
    count = "--nproc-per-node" if torchrun else "--num-gpus"
    if num_gpus < 1:
        raise ConfigError(
            f"{count} {num_gpus} must be at least 1, because it is the number of processes: to"
            " run on the CPU, set train.device=cpu."
        )
    if num_machines < 1:
        raise ConfigError(f"--num-machines {num_machines} must be at least 1.")
    if not 0 <= machine_rank < num_machines:
        raise ConfigError(
            f"--machine-rank {machine_rank} is not from 0 to {num_machines - 1}, which"
            f" --num-machines {num_machines} asks for: number the machines from 0, and give all of"
            " them the same number of machines."
        )
    if device.type == "cuda" and num_gpus > torch.cuda.device_count():
        raise ConfigError(
            f"{count} {num_gpus}, but this machine has {torch.cuda.device_count()}: lower the"
            " number, or set train.device=cpu for processes on the CPU."
        )
    if device.type == "cpu" and num_gpus > 1:
        if cfg.train.device == "auto":
            raise ConfigError(
                f"{count} {num_gpus}, but PyTorch finds no GPU on this machine: see that the driver"
                " and a PyTorch with CUDA are installed, or set train.device=cpu for that many"
                " processes on the CPU."
            )
        _log.warning("%d processes run on the CPU and communicate by gloo.", num_gpus)
    return device


def check_config(
    cfg: DictConfig,
    *,
    training: bool = True,
    check_init_checkpoint: bool = True,
    check_best_metric: bool = True,
) -> None:
    """Check devices, files and data sets before anything large is built.

    Args:
        cfg: a config as :func:`load_config` returns it.
        training: whether the config is used for training, or only for an evaluation.
        check_init_checkpoint: whether the file ``train.init_checkpoint`` has to exist; a resumed
            run does not read it.
        check_best_metric: whether ``train.best_metric`` has to be a result of the config's own
            evaluator; a subclass of the Trainer may have others.

    Raises:
        ConfigError: the device does not support the mixed precision, a mapper reads other colours
            than RGB, a checkpoint is not named, the evaluator has another data set than the test
            loader or a wrong argument, ``train.best_metric`` will be no result, an evaluation has
            no test data, or a logger or the display is not installed.
        DatasetError: a data set is not registered, missing or empty, or has other classes.
        CheckpointError: a file named in the config does not exist.
    """
    check_precision(cfg.train.amp, resolve_device(cfg.train.device))
    if training:
        check_loggers(cfg.train.loggers)
        wants_display(cfg.train.progress)
    if cfg.get("dataloader") is not None:
        _check_mappers(cfg, training)
        labeled, tested = labeled_names(cfg) if training else [], tested_names(cfg)
        _check_data(cfg, labeled, tested, training, best_metric=training and check_best_metric)
        _check_images(cfg, labeled, tested, training)
    # Last, because a file may have to be downloaded, and the data sets are on this machine.
    if training:
        model = cfg.get("model")
        tree = OmegaConf.to_container(model, resolve=True) if OmegaConf.is_config(model) else {}
        if needs_no_teacher(model):
            tree["teacher"] = None
        for path, value in walk(tree, "model"):
            if path.endswith(".checkpoint") and isinstance(value, str):
                _check_file(value, path)
    if cfg.train.init_checkpoint and check_init_checkpoint:
        _check_file(cfg.train.init_checkpoint, "train.init_checkpoint")


def _check_mappers(cfg: DictConfig, training: bool) -> None:
    """Build every mapper once, because that of the test images is needed late, and refuse one that
    reads BGR, as those of Detectron2's own configs do.
    """
    for key in ("test.mapper", *(("train.mapper", "train.unlabeled_mapper") if training else ())):
        order = OmegaConf.select(cfg, f"dataloader.{key}.image_format")
        if order not in (None, "RGB"):
            raise ConfigError(
                f"dataloader.{key}.image_format is {order}, but every detector here takes RGB and"
                " converts images to BGR itself where it needs BGR: set it to RGB."
            )
        name, part = key.split(".")
        loader = cfg.dataloader.get(name)
        mapper = build(loader.get(part)) if OmegaConf.is_dict(loader) else None
        if key == "train.unlabeled_mapper" and getattr(mapper, "labeled", False):
            _check_pseudo_labels(loader.get("unlabeled"))
        is_known = OmegaConf.is_dict(loader) and located(loader.get("_target_", dict)) in _LOADERS
        if is_known and part in loader:  # other loaders may take what they like
            _check_parts(f"dataloader.{name}", loader.get("dataset"), part, mapper)


def _check_pseudo_labels(dataset: Any) -> None:
    """Refuse a mapper that reads labels of images without labels, unless a file has some."""
    is_file = OmegaConf.is_dict(dataset) and located(dataset.get("_target_", dict))
    if is_file is not load_coco_format or not dataset.get("labeled", True):
        raise ConfigError(
            "dataloader.train.unlabeled_mapper reads labels, which images without labels do not"
            " have: set its argument labeled to False, or name a file with pseudo-labels by"
            " dataloader.train.unlabeled=L(load_coco_format)(...)."
        )


def _check_parts(key: str, dataset: Any, name: str, mapper: Any) -> None:
    """Refuse a data set that is not described by a LazyCall, and a mapper that cannot be called."""
    if OmegaConf.is_dict(dataset) and "_target_" not in dataset:
        raise ConfigError(
            f"{key}.dataset is a group of keys without a _target_, and so builds nothing: write it"
            " as a LazyCall, such as L(load_coco_format)(...)."
        )
    if not callable(mapper) and not (mapper is None and name == "unlabeled_mapper"):
        raise ConfigError(
            f"{key}.{name} is {mapper!r}, which cannot be called with a record of a data set: take"
            " a kddetr.data.DetectionMapper, or a function of your own."
        )


def _check_images(cfg: DictConfig, labeled: list[str], tested: list[str], training: bool) -> None:
    """Refuse 16-bit images that a mapper would turn black, because they use fewer bits, and warn of
    images that are trained and tested on.
    """
    parts = [(tested, "", "test.mapper.bits")]
    if training:
        warn_of_shared_images(labeled, tested)
        folder = image_folder(OmegaConf.select(cfg, "dataloader.train.unlabeled"))
        parts.append((labeled, "", "train.mapper.bits"))
        parts.append((_unlabeled(cfg), folder, "train.unlabeled_mapper.bits"))
    for names, folder, key in parts:
        key = f"dataloader.{key}"
        check_pixels(names, OmegaConf.select(cfg, key), key, folder=folder)


def _check_data(
    cfg: DictConfig, labeled: list[str], tested: list[str], training: bool, *, best_metric: bool
) -> None:
    if training:
        others = _unlabeled(cfg)
        pseudo = OmegaConf.select(cfg, "dataloader.train.unlabeled_mapper.labeled") is True
        for name in others:
            check_dataset(name, for_training=pseudo)
        if pseudo:
            check_same_classes([*labeled, *others])
        if labeled:
            # Images can be read without labels on purpose, to be used only for distillation.
            read = OmegaConf.select(cfg, "dataloader.train.mapper.labeled", default=True)
            check_dataset(labeled, for_training=read)
            if read and not OmegaConf.select(cfg, "dataloader.train.dataset.labeled", default=True):
                raise ConfigError(
                    "dataloader.train.dataset.labeled=False leaves out all boxes, and the mapper"
                    " needs them: set dataloader.train.mapper.labeled=False too, or leave it out."
                )
    if tested:
        check_dataset(tested, for_evaluation=True)
    if labeled:
        check_same_classes([*labeled, *tested])
    if has_test_data(cfg):
        check_evaluation(cfg, best_metric=best_metric)
    elif not training:
        raise ConfigError(
            "--eval-only needs test data, and the config names none: set"
            " dataloader.test.dataset.json_file=FILE dataloader.test.dataset.image_root=FOLDER for"
            " data of your own, or dataloader.test.dataset.names=NAME for registered data."
        )


def check_writable(folder: str) -> None:
    """Make the output folder, and check that files can be written into it.

    Raises:
        ConfigError: it cannot be made, is a file, or must not be written to.
    """
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigError(
            f"train.output_dir={folder} cannot be written to ({error.strerror}): name a folder of"
            " yours."
        ) from error


def check_output_dir(folder: str) -> None:
    """Check that a new run would not overwrite another one.

    Raises:
        ConfigError: the folder contains checkpoints of an earlier run.
    """
    present = whole_checkpoints(folder) if os.path.isdir(folder) else []
    if present:
        raise ConfigError(
            f"{folder} already contains a run ({present[-1]}): continue it with --resume, or set"
            " train.output_dir=FOLDER for a new one."
        )


def _check_file(file: str, key: str) -> None:
    if not file:
        raise ConfigError(f"{key} is empty: name the file with {key}=FILE.")
    try:
        local_file(file)
    except CheckpointError as error:
        raise CheckpointError(f"{key}: {error}") from error


def labeled_names(cfg: DictConfig) -> list[str]:
    """The registered names of the labelled training data."""
    return sorted(set(names_in(OmegaConf.select(cfg, "dataloader.train.dataset"))))


def _unlabeled(cfg: DictConfig) -> list[str]:
    """The registered names of the other training data."""
    loader = cfg.dataloader.get("train")
    if not OmegaConf.is_dict(loader):
        return []
    return sorted(
        {name for key, node in loader.items() if key != "dataset" for name in names_in(node)}
    )


def tested_names(cfg: DictConfig) -> list[str]:
    """The registered names of the test data; none where nothing is evaluated."""
    return evaluation_sets(cfg) if has_test_data(cfg) else []
