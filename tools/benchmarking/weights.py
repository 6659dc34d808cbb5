"""Weights of what is measured: those of a config's files, and random ones where a file is missing.

How long a step takes depends on the weights only through the regions and matches that they give.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from detectron2.layers import FrozenBatchNorm2d
from detectron2.utils.file_io import PathManager
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from kddetr.checkpoint import load_pretrained
from kddetr.checkpoint.assets import PREFIX
from kddetr.engine.config.calls import located
from kddetr.teachers import RecordedTeacher


def untrained(model: nn.Module, checkpoint: str) -> nn.Module:
    """The detector with random weights, frozen as :func:`kddetr.checkpoint.load_pretrained` has it;
    the checkpoint is not read.
    """
    model.trained_classes = ()
    return model.eval().requires_grad_(False)


def is_here(file: str) -> bool:
    """Whether a checkpoint is a file of this machine; an address is not fetched to be measured."""
    if not file or ("://" in file and not file.startswith(PREFIX)):
        return False
    return os.path.exists(PathManager.get_local_path(file))


def replace_missing(node: DictConfig) -> list[str]:
    """Replace every ``load_pretrained`` in a config whose file is not there, in place.

    Returns:
        The files that are missing, as the config names them ("" where it names none).
    """
    missing = []
    for call in _calls(node):
        if located(call["_target_"]) is load_pretrained:
            file = call.get("checkpoint") or ""
            if not is_here(file):
                missing.append(file)
                call["_target_"] = untrained
    return missing


def is_recorded(node: DictConfig) -> bool:
    """Whether a config has a teacher that answers from a record."""
    return any(located(call["_target_"]) is RecordedTeacher for call in _calls(node))


def _calls(node: object) -> Iterator[DictConfig]:
    if isinstance(node, DictConfig):
        if "_target_" in node:
            yield node
        for key in node:
            if not OmegaConf.is_interpolation(node, key):
                yield from _calls(node[key])
    elif OmegaConf.is_list(node):
        for item in node:
            yield from _calls(item)


@contextmanager
def batch_statistics(*models: nn.Module) -> Iterator[None]:
    """Inside, the frozen batch norms of models take their statistics from each input.

    The statistics of a new frozen batch norm normalise nothing: with random weights, values would
    grow from layer to layer and give regions that a trained detector never has.
    """

    def take(norm: FrozenBatchNorm2d, given: tuple[Tensor]) -> None:
        norm.running_mean.copy_(given[0].mean((0, 2, 3)))
        norm.running_var.copy_(given[0].var((0, 2, 3)))

    norms = [m for model in models for m in model.modules() if isinstance(m, FrozenBatchNorm2d)]
    handles = [norm.register_forward_pre_hook(take) for norm in norms]
    try:
        with torch.no_grad():
            yield
    finally:
        for handle in handles:
            handle.remove()
