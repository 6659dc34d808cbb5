"""Safe reading and atomic writing of checkpoint files; no other module opens one.

Reading runs no code of a file: only tensors, plain containers and the few harmless types listed
here are unpickled. A write happens completely or not at all.
"""

import argparse
import contextlib
import errno
import os
import pickle
import re
import shutil
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from detectron2.utils.file_io import PathManager
from safetensors.torch import load_file

from ..errors import CheckpointError, StorageError, did_you_mean, one_line
from .archive import check_lengths, check_parts
from .arrays import STAND_INS, ArrayUnpickler, NotNumbersError
from .formats import BEFORE_ZIP, INDEX, check_whole, folder_advice, read_parts, what_else
from .inert import OBJECTS, plain

_HUGGING_FACE = ("model.safetensors", "pytorch_model.bin")
OF_A_RUN = ("model_best.pth", "model_final.pth")
_SAVE = "where it was made, save the weights alone: torch.save({'model': model.state_dict()}, ...)"
_ZIP = b"PK"

# Types that a ``.pth`` may hold besides tensors: training options, numpy's numbers and arrays, and
# objects that mean nothing here.
_SAFE: list[Any] = [argparse.Namespace]
_SAFE += [(value, ".".join(key)) for key, value in (OBJECTS | STAND_INS).items()]

State = Mapping[str, torch.Tensor]  # weights by their names


def read_checkpoint(path: str) -> dict[str, Any]:
    """The content of a checkpoint file as plain containers and CPU tensors; no code of it is run.

    The tensors are views of the file where its format allows (today's ``.pth`` and safetensors):
    reading takes no memory, and a load never holds two copies of a model. Copy what is to be kept.

    Args:
        path: a file, a folder or an address, see :func:`local_file`.

    Raises:
        CheckpointError: the file is missing, empty or cut off, or holds objects that only code
            could rebuild.
    """
    file = local_file(path)
    if file.endswith(INDEX):
        return read_parts(file, _read)
    check_whole(path, file)
    return _read(path)


def _read(path: str) -> dict[str, Any]:
    """The content of one file."""
    file = local_file(path)
    if os.path.getsize(file) == 0:
        raise CheckpointError(f"The checkpoint {path} is empty (0 bytes); {_advice(file)}")
    with open(file, "rb") as stream:
        beginning = stream.read(9)
    if beginning.startswith(_ZIP) and not zipfile.is_zipfile(file):
        raise CheckpointError(f"The checkpoint {path} is cut off before its end; {_advice(file)}")
    try:
        data = plain(_unpickled(file, beginning))
    except NotNumbersError as error:
        raise CheckpointError(
            f"The checkpoint {path} was not read, because it holds {error}, and only numbers are"
            f" read; {_SAVE}."
        ) from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(_refusal(path, file, error)) from error
    except Exception as error:  # damaged bytes have been seen to raise nearly every kind
        if other := what_else(file):
            raise CheckpointError(f"The checkpoint {path} is {other}.") from error
        words = shown(error) or type(error).__name__
        raise CheckpointError(
            f"The checkpoint {path} is damaged ({words}); {_advice(file)}"
        ) from error
    if not isinstance(data, dict):
        if other := what_else(file):
            raise CheckpointError(f"The checkpoint {path} is {other}.")
        raise CheckpointError(
            f"The checkpoint {path} holds a {type(data).__name__} where a dictionary of weights is"
            " expected; save model.state_dict() instead."
        )
    return data


def _unpickled(file: str, beginning: bytes) -> Any:
    """The content of a file; its first nine bytes tell its format."""
    is_zip = beginning.startswith(_ZIP)
    # safetensors: the length of a header in eight bytes, and then the header, which is JSON.
    header = int.from_bytes(beginning[:8], "little")
    if beginning.endswith(b"{") and header < os.path.getsize(file):
        return load_file(file)
    if not is_zip and beginning[2:] != BEFORE_ZIP:
        with open(file, "rb") as stream:
            return ArrayUnpickler(stream, encoding="latin1").load()
    lengths = check_parts(file) if is_zip else ()
    with torch.serialization.safe_globals(_SAFE), warnings.catch_warnings():
        # A file with this oddity is refused, or read like any other.
        warnings.filterwarnings("ignore", message="Detected pickle protocol")
        warnings.filterwarnings("ignore", message=".*looks like a TorchScript archive")
        data = torch.load(file, map_location="cpu", weights_only=True, mmap=is_zip)
    if is_zip:
        check_lengths(data, lengths)
    return data


def atomic_write(path: str, write: Callable[[BinaryIO], Any]) -> None:
    """Write a file completely or not at all: a reader sees the old one or the whole new one.

    Args:
        path: the file to make or replace.
        write: is called with the open binary stream of a temporary file beside it.

    Raises:
        StorageError: the disk is full, or the file cannot be written for another reason.
    """
    temporary = f"{path}.tmp-{os.getpid()}"
    try:
        with open(temporary, "wb") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:
        # torch.save raises a RuntimeError of its own after the stream's error.
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError):
            raise
        raise StorageError(_not_written(path, cause)) from error
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)


def _not_written(path: str, error: OSError) -> str:
    """The message for a file that cannot be written, with the space that is left if it is full."""
    reason, folder = error.strerror or str(error), os.path.dirname(os.path.abspath(path))
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        with contextlib.suppress(OSError):
            reason += f"; {shutil.disk_usage(folder).free / 2**20:.0f} MiB are free in {folder}"
        return f"{path} cannot be written ({reason}): make room there. An older file is unchanged."
    return f"{path} cannot be written ({reason}): choose a folder that can be written."


def whole_checkpoints(folder: str) -> list[str]:
    """Names of the complete ``model_*.pth`` files in a folder, the newest last."""
    files = sorted(Path(folder).glob("model_*.pth"), key=lambda file: file.stat().st_mtime)
    return [file.name for file in files if zipfile.is_zipfile(file)]


def local_file(path: str) -> str:
    """The file on this disk that a path stands for.

    Args:
        path: a file, an address, which is fetched, a Hugging Face folder, or the output folder of
            a run, which stands for its ``model_best.pth``, or else for its ``model_final.pth``.

    Raises:
        CheckpointError: there is no such file; the message gives names that are close.
    """
    if not path:
        raise CheckpointError("No checkpoint was named; give the path of a file.")
    try:
        file = PathManager.get_local_path(path)
    except CheckpointError:
        raise
    except (OSError, ValueError, LookupError, RuntimeError) as error:  # the last by catalogues
        raise CheckpointError(
            f"The checkpoint {path} cannot be fetched: {str(error).rstrip('.')}; check the address"
            " and the connection, or name a local copy."
        ) from error
    if os.path.isdir(file):
        names = (*_HUGGING_FACE, *(name + INDEX for name in _HUGGING_FACE), *OF_A_RUN)
        inside = [os.path.join(file, name) for name in names]
        file = next(filter(os.path.isfile, inside), file)
        if os.path.isdir(file):
            raise CheckpointError(
                f"The checkpoint {path} is a folder without {', '.join(_HUGGING_FACE + OF_A_RUN)};"
                f" {folder_advice(file)}"
            )
    if os.path.isfile(file):
        return file
    if os.path.exists(file):
        raise CheckpointError(f"The checkpoint {path} is a device or pipe; name a file.")
    folder, name = os.path.split(file)
    present = os.listdir(folder or ".") if os.path.isdir(folder or ".") else []
    hint = did_you_mean(name, present, otherwise="check the path.", count=3)
    raise CheckpointError(f"The checkpoint {path} does not exist; {hint}")


def _advice(file: str) -> str:
    """What to do about a damaged file: the end of a message, with a whole file beside it if any.

    A run that is resumed finds that one itself.
    """
    folder, name = os.path.split(os.path.abspath(file))
    others = [other for other in whole_checkpoints(folder) if other != name]
    if not others:
        return "no other checkpoint in its folder is whole, so copy or make it again."
    numbered = [other for other in others if re.fullmatch(r"model_\d+\.pth", other)]
    return f"{(numbered or others)[-1]} beside it is whole: name that one instead."


def _refusal(path: str, file: str, error: Exception) -> str:
    """The message for a file that was not unpickled: what it would run, or that it is damaged."""
    needed = re.findall(r"(?:not allowed:|GLOBAL) (\w[\w.]*\w)", str(error))
    if zipfile.is_zipfile(file):
        # PyTorch's message names only the first.
        with torch.serialization.safe_globals(_SAFE), contextlib.suppress(Exception):
            needed = torch.serialization.get_unsafe_globals_in_checkpoint(file)
    if other := what_else(file):
        return f"The checkpoint {path} is {other}."
    if not needed:
        return f"The checkpoint {path} is damaged or no checkpoint at all; {_advice(file)}"
    names = shown(", ".join(sorted(set(needed))))
    return f"The checkpoint {path} was not read, because unpickling {names} can run code; {_SAVE}."


def shown(words: Any) -> str:
    """Text from a file, safe to print in a message: at most 300 characters on one line."""
    return one_line(" ".join(str(words).split()), 300)
