"""Looking at everything that can be wrong before hours are spent: devices, files, data, classes.

`check_config` runs before any model is built, `check_model` before its first iteration.
"""

import logging
import os
from collections.abc import Iterator
from typing import Any

import torch
from detectron2.data import MetadataCatalog
from omegaconf import DictConfig, OmegaConf
from torch import nn

from kddetr.checkpoint import (
    CheckpointError,
    deployable,
    local_file,
    weight_owner,
    whole_checkpoints,
)
from kddetr.data import check_dataset, check_same_classes, dataset_names
from kddetr.teachers import Vocabulary, listed

from ..errors import ConfigError

__all__ = [
    "check_config",
    "check_launch",
    "check_model",
    "check_output_dir",
    "labeled_datasets",
    "resolve_device",
]

_log = logging.getLogger(__name__)


def resolve_device(name: str) -> torch.device:
    """The device that `train.device` means; "auto" is CUDA where available, else the CPU.

    Raises:
        ConfigError: no such device here.
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
            f"train.device={name}, but torch sees no CUDA device here; use train.device=cpu (or "
            "auto)."
        )
    return device


def check_launch(cfg: DictConfig, num_gpus: int, *, torchrun: bool = False) -> torch.device:
    """Check that the wanted processes can be started.

    Args:
        cfg: the config.
        num_gpus: processes on this machine.
        torchrun: whether they have been started already.

    Returns:
        The device to run on.

    Raises:
        ConfigError: fewer GPUs than asked for, or none, or mixed precision that it cannot do.
    """
    device = resolve_device(cfg.train.device)
    if num_gpus < 1:
        raise ConfigError(
            f"--num-gpus {num_gpus}: it counts processes; to run on the CPU say train.device=cpu."
        )
    if device.type == "cuda" and num_gpus > torch.cuda.device_count() and not torchrun:
        raise ConfigError(
            f"--num-gpus {num_gpus}, but there are {torch.cuda.device_count()} here; lower it, or "
            "say "
            "train.device=cpu for processes on the CPU."
        )
    if device.type == "cpu" and num_gpus > 1:
        _log.warning("%d processes run on the CPU and talk through gloo.", num_gpus)
    _check_precision(cfg, device)
    return device


def check_config(cfg: DictConfig, *, training: bool = True, resuming: bool = False) -> None:
    """Check devices, files and data sets before anything large is built.

    Args:
        cfg: a config as `load_config` returns it.
        training: whether it is to be trained with, or evaluated only.
        resuming: whether a checkpoint of its own takes the place of `train.init_checkpoint`.

    Raises:
        ConfigError: see above.
        DatasetError: a data set is not registered, missing, empty or of other classes.
        CheckpointError: a file named in the config does not exist.
    """
    _check_precision(cfg, resolve_device(cfg.train.device))
    if cfg.get("dataloader") is not None:
        _check_colours(cfg)
        _check_data(cfg, training)
    # After the data, which is looked at on this disk: a file may have to be fetched first.
    if training:
        for path, file in _checkpoints(cfg.get("model"), "model"):
            _check_file(file, path)
    if cfg.train.init_checkpoint and not resuming:
        _check_file(cfg.train.init_checkpoint, "train.init_checkpoint")


def _check_colours(cfg: DictConfig) -> None:
    """Detectron2's own mapper reads BGR where nothing else is said in its configs."""
    for key in ("train.mapper", "train.unlabeled_mapper", "test.mapper"):
        order = OmegaConf.select(cfg, f"dataloader.{key}.image_format")
        if order not in (None, "RGB"):
            raise ConfigError(
                f"dataloader.{key}.image_format is {order}, but every detector here takes RGB and "
                "turns it round itself where it has to: set it to RGB."
            )


def _check_data(cfg: DictConfig, training: bool) -> None:
    labeled, unlabeled, tested = labeled_datasets(cfg), _unlabeled(cfg), _tested(cfg)
    if training:
        for name in unlabeled:
            check_dataset(name)
        if labeled:
            # All images may be unlabelled on purpose, for distillation alone.
            read = OmegaConf.select(cfg, "dataloader.train.mapper.labeled", default=True)
            check_dataset(labeled, for_training=read)
    if tested:
        check_dataset(tested, for_evaluation=True)
    if training and labeled:
        check_same_classes([*labeled, *tested])


def labeled_datasets(cfg: DictConfig) -> list[str]:
    """Registered names of the labelled training images."""
    return sorted(set(_names(OmegaConf.select(cfg, "dataloader.train.dataset"))))


def check_model(cfg: DictConfig, model: nn.Module) -> None:
    """Check that the detector has as many classes as its data, and its teacher's answers the same.

    One too few trains without complaint in many detectors, and the last class is never found. Where
    a :class:`~kddetr.checkpoint.Vocabulary` says what a teacher's classes are called, they must be
    the data's, in their order.

    Raises:
        ConfigError: the numbers or the names differ.
    """
    detector = deployable(model)
    amp = cfg.train.amp
    if amp.enabled and amp.dtype == "bfloat16" and hasattr(weight_owner(model), "roi_heads"):
        _log.warning(
            "In bfloat16 Detectron2 rounds the corners of regions to 8 significant bits, up to 4 "
            "pixels on a large image: float32, or float16 on CUDA, is closer for a detector with "
            "ROI heads."
        )
    num_classes = getattr(detector, "num_classes", None)
    if num_classes is None:
        return
    wanted = _wanted_classes(model)
    for name in dict.fromkeys([*labeled_datasets(cfg), *_tested(cfg)]):
        classes = MetadataCatalog.get(name).get("thing_classes")
        if classes is None:
            continue
        if len(classes) != num_classes:
            raise ConfigError(
                f"The {type(detector).__name__} has num_classes={num_classes}, but the data set "
                f"'{name}' "
                f"has {len(classes)} classes ({', '.join(list(classes)[:5])}, ...); they must be "
                "equal."
            )
        if wanted and wanted != list(classes):
            raise ConfigError(
                f"The teacher's Vocabulary answers for {listed(wanted)}, but the classes of the "
                f"data set '{name}' are {listed(classes)}; its wanted must be these, in this order."
            )


def _wanted_classes(model: nn.Module) -> list[str]:
    """Names of the classes that the teacher in a distiller answers for, where it knows them."""
    teacher = getattr(model, "teacher", None)
    while teacher is not None and not isinstance(teacher, Vocabulary):
        teacher = getattr(teacher, "detector", None)  # what stands around another one
    return teacher.wanted if teacher is not None else []


def check_output_dir(folder: str) -> None:
    """Check that a new run would overwrite nothing.

    Raises:
        ConfigError: the folder holds checkpoints of an earlier run.
    """
    present = whole_checkpoints(folder) if os.path.isdir(folder) else []
    if present:
        raise ConfigError(
            f"{folder} already holds a run ({present[-1]}); go on with it by --resume, or start a "
            "new one "
            "elsewhere with train.output_dir=FOLDER."
        )


def _check_precision(cfg: DictConfig, device: torch.device) -> None:
    amp = cfg.train.amp
    if not amp.enabled:
        return
    if amp.dtype == "float16" and device.type == "cpu":
        raise ConfigError(
            "train.amp.dtype=float16 needs CUDA; on the CPU use train.amp.dtype=bfloat16."
        )
    if amp.dtype == "bfloat16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise ConfigError("This GPU has no bfloat16; use train.amp.dtype=float16.")


def _check_file(file: str, key: str) -> None:
    if not file:
        raise ConfigError(f"{key} is empty; name the file with {key}=FILE.")
    try:
        local_file(file)
    except CheckpointError as error:
        raise CheckpointError(f"{key}: {error}") from error


def _checkpoints(node: Any, path: str) -> Iterator[tuple[str, str]]:
    """All `checkpoint` arguments of calls inside a config node."""
    if not isinstance(node, DictConfig):
        return
    for key, value in node.items():
        if key == "checkpoint" and isinstance(value, str):
            yield f"{path}.{key}", value
        yield from _checkpoints(value, f"{path}.{key}")


def _names(node: Any) -> list[str]:
    """Registered names that a data node uses, however deep inside other calls."""
    if not OmegaConf.is_config(node):
        return []
    if OmegaConf.is_dict(node):
        found = dataset_names(node)
        return found or [name for value in node.values() for name in _names(value)]
    return [name for item in node for name in _names(item)]


def _unlabeled(cfg: DictConfig) -> list[str]:
    loader = cfg.dataloader.get("train")
    if not OmegaConf.is_dict(loader):
        return []
    return sorted(
        {name for key, node in loader.items() if key != "dataset" for name in _names(node)}
    )


def _tested(cfg: DictConfig) -> list[str]:
    """Names that are evaluated on; the evaluator must look at what the test loader reads."""
    tested = sorted(set(_names(OmegaConf.select(cfg, "dataloader.test.dataset"))))
    node = OmegaConf.select(cfg, "dataloader.evaluator.dataset_name")
    judged = dataset_names(node) if node is not None else []
    if tested and judged and not set(judged) <= set(tested):
        raise ConfigError(
            f"dataloader.evaluator judges {', '.join(judged)}, but dataloader.test reads "
            f"{', '.join(tested)}; name the same data set in both."
        )
    return sorted({*tested, *judged})
