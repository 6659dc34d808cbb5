"""Checks before training or evaluation starts: devices, files, data sets and classes.

:func:`check_config` needs no model; :func:`check_model` is for the model before its first
iteration.
"""

import logging
import os
from typing import Any

import torch
from detectron2.data import MetadataCatalog
from omegaconf import DictConfig, OmegaConf
from torch import nn

from ..checkpoint import deployable, local_file, weight_owner, whole_checkpoints
from ..data import check_dataset, check_same_classes, dataset_names
from ..errors import CheckpointError, ConfigError
from ..teachers import Vocabulary, listed
from .calls import walk

_log = logging.getLogger(__name__)


def resolve_device(name: str) -> torch.device:
    """The device of ``train.device``; "auto" is CUDA where available, otherwise the CPU.

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
        raise ConfigError(f"train.device must be auto, cpu or cuda, not '{name}'.")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            f"train.device={name}, but PyTorch finds no CUDA device: use train.device=cpu or auto."
        )
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
    cfg: DictConfig, *, training: bool = True, check_init_checkpoint: bool = True
) -> None:
    """Check devices, files and data sets before anything large is built.

    Args:
        cfg: a config as :func:`load_config` returns it.
        training: whether the config is used for training, or only for an evaluation.
        check_init_checkpoint: whether the file ``train.init_checkpoint`` has to exist; a resumed
            run does not read it.

    Raises:
        ConfigError: the device does not support the mixed precision, a mapper reads other colours
            than RGB, a checkpoint is not named, or the evaluator has another data set than the
            test loader.
        DatasetError: a data set is not registered, missing or empty, or has other classes.
        CheckpointError: a file named in the config does not exist.
    """
    _check_precision(cfg, resolve_device(cfg.train.device))
    if cfg.get("dataloader") is not None:
        _check_colours(cfg)
        _check_data(cfg, training)
    # Last, because a file may have to be downloaded, and the data sets are on this machine.
    if training:
        model = cfg.get("model")
        tree = OmegaConf.to_container(model, resolve=True) if OmegaConf.is_config(model) else {}
        for path, value in walk(tree, "model"):
            if path.endswith(".checkpoint") and isinstance(value, str):
                _check_file(value, path)
    if cfg.train.init_checkpoint and check_init_checkpoint:
        _check_file(cfg.train.init_checkpoint, "train.init_checkpoint")


def _check_colours(cfg: DictConfig) -> None:
    """Refuse a mapper that reads BGR, as those of Detectron2's own configs do."""
    for key in ("train.mapper", "train.unlabeled_mapper", "test.mapper"):
        order = OmegaConf.select(cfg, f"dataloader.{key}.image_format")
        if order not in (None, "RGB"):
            raise ConfigError(
                f"dataloader.{key}.image_format is {order}, but every detector here takes RGB and"
                " converts images to BGR itself where it needs BGR: set it to RGB."
            )


def _check_data(cfg: DictConfig, training: bool) -> None:
    labeled, tested = _labeled(cfg), _tested(cfg)
    if training:
        for name in _unlabeled(cfg):
            check_dataset(name)
        if labeled:
            # Images can be read without labels on purpose, to be used only for distillation.
            read = OmegaConf.select(cfg, "dataloader.train.mapper.labeled", default=True)
            check_dataset(labeled, for_training=read)
    if tested:
        check_dataset(tested, for_evaluation=True)
    if training and labeled:
        check_same_classes([*labeled, *tested])


def check_model(cfg: DictConfig, model: nn.Module) -> None:
    """Check that the classes of the detector, and of its teacher, are those of its data.

    Many detectors train without an error with one class too few, and never detect the last class.
    Where a teacher is in a :class:`~kddetr.teachers.Vocabulary`, the names that it selects must be
    those of the data, in the same order.

    Raises:
        ConfigError: the numbers or the names of the classes differ.
    """
    detector = deployable(model)
    amp = cfg.train.amp
    if amp.enabled and amp.dtype == "bfloat16" and hasattr(weight_owner(model), "roi_heads"):
        _log.warning(
            "In bfloat16 Detectron2 rounds the corners of regions to 8 significant bits, by up to 4"
            " pixels on a large image: float32, or float16 on CUDA, is more exact for a detector"
            " with ROI heads."
        )
    num_classes = getattr(detector, "num_classes", None)
    if num_classes is None:
        return
    wanted = _wanted_classes(model)
    for name in dict.fromkeys([*_labeled(cfg), *_tested(cfg)]):
        classes = MetadataCatalog.get(name).get("thing_classes")
        if classes is None:
            continue
        if len(classes) != num_classes:
            raise ConfigError(
                f"The {type(detector).__name__} has num_classes={num_classes}, but the data set"
                f" '{name}' has {len(classes)} classes ({', '.join(list(classes)[:5])}, ...): set"
                f" num_classes={len(classes)} in the config (for a distilled student"
                " model.student.num_classes)."
            )
        if wanted and wanted != list(classes):
            raise ConfigError(
                f"The teacher's Vocabulary selects these classes: {listed(wanted)}, but the classes"
                f" of the data set '{name}' are {listed(classes)}: set its argument wanted to"
                " these, in this order."
            )


def _wanted_classes(model: nn.Module) -> list[str]:
    """The class names that the Vocabulary of a teacher selects; empty without a Vocabulary."""
    teacher = getattr(model, "teacher", None)
    while teacher is not None and not isinstance(teacher, Vocabulary):
        teacher = getattr(teacher, "detector", None)  # the detector in another wrapper
    return teacher.wanted if teacher is not None else []


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


def _check_precision(cfg: DictConfig, device: torch.device) -> None:
    amp = cfg.train.amp
    if not amp.enabled:
        return
    if amp.dtype == "float16" and device.type == "cpu":
        raise ConfigError(
            "train.amp.dtype=float16 needs CUDA: use train.amp.dtype=bfloat16 on the CPU."
        )
    if amp.dtype == "bfloat16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise ConfigError(
            "This GPU does not support train.amp.dtype=bfloat16: use train.amp.dtype=float16."
        )


def _check_file(file: str, key: str) -> None:
    if not file:
        raise ConfigError(f"{key} is empty: name the file with {key}=FILE.")
    try:
        local_file(file)
    except CheckpointError as error:
        raise CheckpointError(f"{key}: {error}") from error


def _names(node: Any) -> list[str]:
    """The registered names that a config node of data uses, at any depth."""
    if not OmegaConf.is_config(node):
        return []
    if OmegaConf.is_dict(node):
        found = dataset_names(node)
        return found or [name for value in node.values() for name in _names(value)]
    return [name for item in node for name in _names(item)]


def _labeled(cfg: DictConfig) -> list[str]:
    """The registered names of the labelled training data."""
    return sorted(set(_names(OmegaConf.select(cfg, "dataloader.train.dataset"))))


def _unlabeled(cfg: DictConfig) -> list[str]:
    """The registered names of the other training data."""
    loader = cfg.dataloader.get("train")
    if not OmegaConf.is_dict(loader):
        return []
    return sorted(
        {name for key, node in loader.items() if key != "dataset" for name in _names(node)}
    )


def _tested(cfg: DictConfig) -> list[str]:
    """The registered names of the test data.

    Raises:
        ConfigError: the evaluator has another data set than the test loader.
    """
    tested = sorted(set(_names(OmegaConf.select(cfg, "dataloader.test.dataset"))))
    node = OmegaConf.select(cfg, "dataloader.evaluator.dataset_name")
    evaluated = dataset_names(node) if node is not None else []
    if tested and evaluated and not set(evaluated) <= set(tested):
        raise ConfigError(
            f"dataloader.evaluator evaluates {', '.join(evaluated)}, but dataloader.test reads"
            f" {', '.join(tested)}: name the same data set in both."
        )
    return sorted({*tested, *evaluated})
