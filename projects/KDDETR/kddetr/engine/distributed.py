"""Data parallelism on GPUs and CPUs, and equal buffers in all processes for an evaluation."""

import inspect
from typing import Any

import torch
import torch.distributed as dist
from detectron2.engine.defaults import create_ddp_model
from detectron2.utils import comm
from torch import nn
from torch.nn.parallel import DistributedDataParallel


def wrap_for_processes(
    model: nn.Module, device: torch.device, *, find_unused_parameters: bool, fp16_compression: bool
) -> nn.Module:
    """``model`` in DistributedDataParallel (DDP), or ``model`` itself when there is one process.

    Args:
        model: a module on ``device``.
        device: of type cuda or cpu.
        find_unused_parameters: for models in which some parameters get no gradient in an iteration.
        fp16_compression: send gradients in half precision.
    """
    known = inspect.signature(DistributedDataParallel).parameters
    # Statistics may differ between processes in training; evaluation uses those of the first one.
    sync = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    options: dict[str, Any] = {sync: False, "find_unused_parameters": find_unused_parameters}
    if device.type == "cpu":
        options["device_ids"] = None  # DDP takes none there
    return create_ddp_model(model, fp16_compression=fp16_compression, **options)


def broadcast_buffers(model: nn.Module) -> None:
    """Give every process the buffers of the first one, which are those in its checkpoints."""
    if comm.get_world_size() == 1:
        return
    for buffer in model.buffers():
        dist.broadcast(buffer, src=0)
