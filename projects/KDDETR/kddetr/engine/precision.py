"""The precision that a run trains in: float32, or mixed precision in bfloat16 or float16.

``train.amp.enabled=auto`` leaves it to the device. A run that is resumed keeps the precision that
it had, and one that says true or false is obeyed. An evaluation is always in float32, so that the
AP of a checkpoint does not depend on the card.
"""

import logging
from typing import TYPE_CHECKING

import torch
from detectron2.utils import comm
from omegaconf import DictConfig
from torch import nn

from ..checkpoint import weight_owner
from ..errors import ConfigError
from .agreement import all_or_none, require_same

if TYPE_CHECKING:
    from .trainer import Trainer

_log = logging.getLogger(__name__)
AUTO = "auto"


def amp_dtype(
    amp: DictConfig, device: torch.device, model: nn.Module | None = None
) -> torch.dtype | None:
    """The type of mixed precision; None for float32.

    "auto" is mixed precision on a card that computes ``train.amp.dtype`` itself, and float32 on
    every other device. It is also float32 with ROI heads in bfloat16, which rounds the corners of
    regions (see :func:`~kddetr.engine.check_model`).

    Args:
        amp: the section ``train.amp`` of a config.
        device: that is trained on.
        model: that is trained; None: whether it has ROI heads is not asked.
    """
    dtype = getattr(torch, amp.dtype)
    if amp.enabled != AUTO:
        return dtype if amp.enabled else None
    if device.type != "cuda":
        return None
    if dtype is torch.bfloat16:
        # A card without bfloat16 emulates it, which is slower than float32.
        if not torch.cuda.is_bf16_supported(including_emulation=False):
            return None
        if model is not None and has_roi_heads(model):
            return None
    return dtype


def has_roi_heads(model: nn.Module) -> bool:
    """Whether the detector that is trained, or the teacher, is an R-CNN."""
    detectors = [weight_owner(model), getattr(model, "teacher", None)]
    parts = (part for d in detectors if isinstance(d, nn.Module) for part in d.modules())
    return any(hasattr(part, "roi_heads") for part in parts)


def check_precision(amp: DictConfig, device: torch.device) -> None:
    """Check that a device has the mixed precision that a config asks for.

    Raises:
        ConfigError: it does not.
    """
    if not amp.enabled or amp.enabled == AUTO:
        return
    if amp.dtype == "float16" and device.type == "cpu":
        raise ConfigError(
            "train.amp.dtype=float16 needs CUDA: use train.amp.dtype=bfloat16 on the CPU."
        )
    if amp.dtype == "bfloat16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise ConfigError(
            "This GPU does not support train.amp.dtype=bfloat16: use train.amp.dtype=float16."
        )


def keep_precision(before: DictConfig, now: DictConfig) -> None:
    """Take over the precision of the run that is resumed, where the config leaves it open."""
    if now.train.amp.enabled == AUTO:
        now.train.amp = before.train.amp


def settle_precision(trainer: "Trainer") -> None:
    """Write what "auto" has become into the config, use it, and log it once.

    Raises:
        ConfigError: this device does not have the precision of the run that is resumed, or another
            process has chosen another one.
    """
    amp, step = trainer.cfg.train.amp, trainer._trainer
    device = next(trainer.model.parameters()).device
    chosen = amp_dtype(amp, device, trainer.unwrapped)
    require_same(
        {"the precision": dtype_name(chosen)},
        "set train.amp.enabled to true or false, because their cards differ.",
    )
    amp.enabled = chosen is not None
    with all_or_none():
        check_precision(amp, device)
    if chosen is not step.amp_dtype:
        step.amp_dtype = chosen
        _log.info("The run goes on in %s, as it began (train.amp).", dtype_name(chosen))
    elif comm.is_main_process():
        _log.info("Training in %s on %s (train.amp).", dtype_name(chosen), device.type)


def dtype_name(dtype: torch.dtype | None) -> str:
    """``bfloat16`` for torch.bfloat16; None is float32."""
    return "float32" if dtype is None else str(dtype).removeprefix("torch.")
