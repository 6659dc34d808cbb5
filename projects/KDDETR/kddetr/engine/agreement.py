"""What all processes of a job have to agree on before they train together.

A process that starts from something else than the others, or that ends early, would leave them
waiting for it, or train on in silence. So an error in one is raised in all of them, and what they
start from is compared.
"""

import contextlib
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from detectron2.utils import comm
from omegaconf import DictConfig
from torch import nn

from ..errors import ConfigError
from .config.differences import settings

# Keys that may differ between machines.
_LOCAL = ("train.output_dir", "train.device", "num_workers")


@contextlib.contextmanager
def all_or_none() -> Iterator[None]:
    """An error in one process is an error in all; the processes wait for each other at the end.

    What is inside must not communicate.

    Raises:
        ConfigError: another process failed; the message says which, and has that process's own.
    """
    error: Exception | None = None
    try:
        yield
    except Exception as raised:
        error = raised
    said = comm.all_gather(None if error is None else str(error) or type(error).__name__)
    if error is not None:
        raise error
    for rank, text in enumerate(said):
        if text is not None:
            raise ConfigError(f"{place(rank)}: {text}")


def require_same(facts: Mapping[str, Any], advice: str) -> None:
    """Check that a fact is the same in all processes.

    Args:
        facts: short values by what they are, e.g. ``{"checkpoint": "model_0000999.pth"}``.
        advice: what to do where they differ.

    Raises:
        ConfigError: in all processes; it names the first process that differs from process 0, and
            both values.
    """
    first, *others = comm.all_gather(dict(facts))
    for rank, theirs in enumerate(others, start=1):
        for name in dict.fromkeys([*first, *theirs]):
            here, there = first.get(name, "unset"), theirs.get(name, "unset")
            if here != there:
                raise ConfigError(
                    f"On {place(rank)} {name} is {there}, and on {place(0)} it is {here}: {advice}"
                )


def require_same_config(cfg: DictConfig) -> None:
    """Check that all processes have the same config; paths and loading processes may differ.

    Raises:
        ConfigError: a machine was started with another config file or other overrides.
    """
    if comm.get_world_size() > 1:
        facts = {
            key: str(value)
            for key, value in settings(cfg).items()
            if not key.endswith(_LOCAL) and "/" not in str(value)
        }
        require_same(facts, "start all machines with the same config and the same overrides.")


def require_same_weights(model: nn.Module, what: str = "the weights") -> None:
    """Check that a model has the same weights and buffers in all processes.

    Raises:
        ConfigError: they differ; the message has fingerprints.
    """
    if comm.get_world_size() > 1:
        found = fingerprint(model.state_dict().values())
        require_same({f"the fingerprint of {what}": found}, "give all machines the same files.")


def place(rank: int) -> str:
    """Where a process is: ``machine 1``, or on a single machine ``process 1``."""
    local = comm.get_local_size()
    return f"machine {rank // local}" if comm.get_world_size() > local else f"process {rank}"


def fingerprint(tensors: Iterable[torch.Tensor]) -> str:
    """A short text that is the same only for the same values in the same order."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:12]
