"""Reading and writing checkpoint files: the only place of the project that opens one.

A file from outside is data, never code: only tensors, plain containers and the few harmless types
listed here are unpickled, and a write either happens completely or not at all.
"""

import _codecs
import argparse
import collections
import contextlib
import difflib
import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from detectron2.utils.file_io import PathManager
from safetensors import SafetensorError
from safetensors.torch import load_file

__all__ = [
    "CheckpointError",
    "atomic_write",
    "local_file",
    "read_checkpoint",
    "weights_of",
    "whole_checkpoints",
]

# Where the weights lie in the layouts that are met in practice, in order of preference.
CONTAINERS = ("model", "ema_model", "ema_state", "state_dict", "model_state")
_AVERAGED = ("ema_model", "ema_state")
_IN_A_FOLDER = ("model.safetensors", "pytorch_model.bin")  # as Hugging Face names them
_NOT_WEIGHTS = re.compile(r"(^|\.)(total_params|total_ops)$")

_RECONSTRUCT = np.empty(0).__reduce__()[0]
_SCALAR = np.float64(0).__reduce__()[0]
_NUMPY = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _RECONSTRUCT for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _SCALAR for core in ("core", "_core")},
    ("_codecs", "encode"): _codecs.encode,
}
_DAMAGE = (
    EOFError,
    RuntimeError,
    OSError,
    ValueError,
    KeyError,
    zipfile.BadZipFile,
    SafetensorError,
)
_DTYPES = {type(np.dtype(code)) for code in "?bhilqBHILQefd"}


class CheckpointError(RuntimeError):
    """A checkpoint is missing, damaged, unsafe to read, or does not fit the model."""


def read_checkpoint(path: str) -> dict[str, Any]:
    """Read a checkpoint file into plain containers and CPU tensors, running none of its code.

    The tensors are views of the file wherever its format allows (today's `.pth` and safetensors):
    reading costs no memory, so a load never holds two copies of a model. Copy what is to be kept.

    Args:
        path: a file, a Hugging Face folder, or an address that Detectron2's path manager knows.

    Raises:
        CheckpointError: missing, empty, truncated, or holding objects that only code could rebuild.
    """
    file = local_file(path)
    if os.path.getsize(file) == 0:
        raise CheckpointError(f"The checkpoint {path} is empty (0 bytes); {_advice(file)}")
    with open(file, "rb") as stream:
        beginning = stream.read(9)
    is_zip = beginning.startswith(b"PK")
    if is_zip and not zipfile.is_zipfile(file):
        raise CheckpointError(f"The checkpoint {path} is cut off before its end; {_advice(file)}")
    try:
        if _is_safetensors(beginning, os.path.getsize(file)):
            data = load_file(file)
        elif file.endswith(".pkl") and not is_zip:
            with open(file, "rb") as stream:
                data = _ArrayUnpickler(stream, encoding="latin1").load()
        else:
            with torch.serialization.safe_globals(_safe_globals()), warnings.catch_warnings():
                # An odd file is refused below, or read as well as any other.
                warnings.filterwarnings("ignore", message="Detected pickle protocol")
                data = torch.load(file, map_location="cpu", weights_only=True, mmap=is_zip)
    except pickle.UnpicklingError as error:
        raise CheckpointError(_refusal(path, file, error)) from error
    except _DAMAGE as error:
        raise CheckpointError(
            f"The checkpoint {path} is damaged ({error}); {_advice(file)}"
        ) from error
    if not isinstance(data, dict):
        raise CheckpointError(
            f"The checkpoint {path} holds a {type(data).__name__} where a dictionary of weights is "
            "expected; save model.state_dict() instead."
        )
    return data


def weights_of(
    data: dict[str, Any], source: str, *, averaged: bool = False
) -> dict[str, torch.Tensor]:
    """The state dict in a checkpoint, whichever of the usual layouts it has.

    Understood are {"model": ...}, {"ema_model": ...}, {"ema_state": ...}, {"state_dict": ...},
    {"model_state": ...}, the first there is, and a flat dictionary; `module.` in front of every
    name is removed, numpy arrays become tensors.

    Args:
        data: what `read_checkpoint` returned.
        source: the file's name, for messages.
        averaged: take the moving average (`ema_model`, `ema_state`), not the model beside it.

    Raises:
        CheckpointError: no weights are found, or one of them is not an array.
    """
    keys = _AVERAGED if averaged else CONTAINERS
    state = next((data[key] for key in keys if isinstance(data.get(key), dict)), data)
    if averaged and state is data:
        raise CheckpointError(f"The checkpoint {source} holds no moving average of its weights.")
    metadata = getattr(state, "_metadata", None)
    state = {
        k: v for k, v in state.items() if not _NOT_WEIGHTS.search(str(k)) and k != "__author__"
    }
    bad = [key for key, value in state.items() if not isinstance(value, torch.Tensor | np.ndarray)]
    if bad or not state:
        known = ", ".join(CONTAINERS)
        raise CheckpointError(
            f"The checkpoint {source} holds no weights under any of the names {known}: its entries "
            "are "
            f"{', '.join(map(str, list(data)[:8]))}."
        )
    while all(key.startswith("module.") for key in state):
        state = {key.removeprefix("module."): value for key, value in state.items()}
        metadata = None
    tensors = collections.OrderedDict((key, torch.as_tensor(value)) for key, value in state.items())
    if metadata is not None:
        tensors._metadata = metadata  # versions by which modules recognise their older files
    return tensors


def atomic_write(path: str, write: Callable[[BinaryIO], None]) -> None:
    """Write a file so that a reader sees the old one or the whole new one, whatever happens.

    Args:
        path: the file to make or replace.
        write: gets the open binary stream of a temporary file beside it.
    """
    temporary = f"{path}.tmp-{os.getpid()}"
    try:
        with open(temporary, "wb") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def whole_checkpoints(folder: str) -> list[str]:
    """Names of the complete `model_*.pth` files in a folder, the newest last."""
    files = sorted(Path(folder).glob("model_*.pth"), key=lambda file: file.stat().st_mtime)
    return [file.name for file in files if zipfile.is_zipfile(file)]


def local_file(path: str) -> str:
    """The file on this disk that `path` means: fetched if it is an address, the weights in it if it
    is a Hugging Face folder.

    Raises:
        CheckpointError: there is none; names that are close are given.
    """
    if not path:
        raise CheckpointError("No checkpoint was named; give the path of a file.")
    try:
        file = PathManager.get_local_path(path)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"The checkpoint {path} cannot be fetched: {error}.") from error
    if os.path.isdir(file):
        inside = [os.path.join(file, name) for name in _IN_A_FOLDER]
        file = next(filter(os.path.isfile, inside), file)
        if os.path.isdir(file):
            raise CheckpointError(
                f"The checkpoint {path} is a folder without {' and without '.join(_IN_A_FOLDER)}; "
                "name a file."
            )
    if os.path.isfile(file):
        return file
    folder, name = os.path.split(file)
    present = os.listdir(folder or ".") if os.path.isdir(folder or ".") else []
    close = difflib.get_close_matches(name, present, n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else "check the path."
    raise CheckpointError(f"The checkpoint {path} does not exist; {hint}")


def _is_safetensors(beginning: bytes, size: int) -> bool:
    """Eight bytes that say how long the header is, then the header, which is JSON."""
    return beginning.endswith(b"{") and int.from_bytes(beginning[:8], "little") < size


def _advice(file: str) -> str:
    """What to do about a damaged file: which other one in its folder is whole."""
    folder, name = os.path.split(os.path.abspath(file))
    others = [other for other in whole_checkpoints(folder) if other != name]
    numbered = [other for other in others if re.fullmatch(r"model_\d+\.pth", other)]
    if not others:
        return "no other checkpoint in its folder is whole, so copy or make it again."
    best = (numbered or others)[-1]
    if not numbered:
        return f"{best} beside it is whole: name that one instead."
    return f"{best} beside it is whole: to resume from it, write its name into last_checkpoint."


def _safe_globals() -> list[Any]:
    """What a `.pth` may hold besides tensors: options of training scripts, numpy numbers."""
    named = [(value, ".".join(key)) for key, value in _NUMPY.items()]
    return [argparse.Namespace, *named, *_DTYPES]


def _refusal(path: str, file: str, error: Exception) -> str:
    """Why a file was not unpickled: what it asks for, or that it is damaged."""
    needed = re.findall(r"(?:not allowed:|GLOBAL) (\w[\w.]*\w)", str(error))
    if zipfile.is_zipfile(file):
        # torch names only the first in its message.
        allowed = torch.serialization.safe_globals(_safe_globals())
        with allowed, contextlib.suppress(pickle.UnpicklingError):
            needed = torch.serialization.get_unsafe_globals_in_checkpoint(file)
    if not needed:
        return f"The checkpoint {path} is damaged or no checkpoint at all; {_advice(file)}"
    return (
        f"The checkpoint {path} was not read, because unpickling {', '.join(sorted(set(needed)))} "
        "can run "
        "code; where it was made, save the weights alone: torch.save({'model': "
        "model.state_dict()}, ...)."
    )


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickles Detectron2's `.pkl` files, dictionaries of numpy arrays, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) in _NUMPY:
            return _NUMPY[module, name]
        raise pickle.UnpicklingError(f"not allowed: {module}.{name}")
