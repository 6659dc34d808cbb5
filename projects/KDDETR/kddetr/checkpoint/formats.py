"""Formats of files that are not one checkpoint: parts of a whole one, and other things."""

import contextlib
import json
import os
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import CheckpointError

INDEX = ".index.json"  # how Hugging Face's lists of the files of one model end
_PART = re.compile(r"-(\d{5})-of-(\d{5})\.\w+$")
_PAGE = re.compile(rb"\s*(<!doctype html|<html|<head|<\?xml)", re.IGNORECASE)
_BEGINNINGS = {
    b"version https://git-lfs": "a Git LFS pointer and not the file itself; fetch it: git lfs pull",
    b"\x89HDF": "an HDF5 file, as Keras writes it; only files of PyTorch are read",
    b"\x1f\x8b": "compressed by gzip; decompress it first",
    b"BZh": "compressed by bzip2; decompress it first",
    b"\xfd7zXZ": "compressed by xz; decompress it first",
    b"7z\xbc\xaf": "a 7z archive; unpack it and name the checkpoint in it",
    b"Rar!": "a RAR archive; unpack it and name the checkpoint in it",
}
# How files of PyTorch before 1.6 begin, after the pickle's protocol.
BEFORE_ZIP = b"\x8a\nl\xfc\x9cF\xf9"
_TOO_NEW = (
    "written with pickle_protocol 4 or 5, which PyTorch reads only where code may run; where it was"
    " made, save it without that argument: torch.save({'model': model.state_dict()}, ...)"
)
_TEXTS = (".py", ".yaml", ".yml", ".json", ".txt", ".md", ".csv", ".log")


def what_else(file: str) -> str:
    """What a file is that could not be read as a checkpoint, and what to do; "" if not known."""
    with open(file, "rb") as stream:
        beginning = stream.read(512)
    for start, words in _BEGINNINGS.items():
        if beginning.startswith(start):
            return words
    if _PAGE.match(beginning.removeprefix(b"\xef\xbb\xbf")):
        return "a web page, perhaps of a login or an error; download the file itself"
    if re.match(rb"\x80[\x04\x05]\x95", beginning) and BEFORE_ZIP in beginning[:32]:
        return _TOO_NEW
    if beginning[257:262] == b"ustar":
        return "a tar archive; unpack it and name the checkpoint in it"
    if file.lower().endswith(".onnx") or re.match(rb"\x08[\x03-\x10]\x12.\w", beginning, re.DOTALL):
        return "an ONNX file; name the PyTorch checkpoint that it was exported from"
    if zipfile.is_zipfile(file):
        with contextlib.suppress(zipfile.BadZipFile, ValueError, NotImplementedError):
            return _archive(file)
    if beginning[:1] in (b"{", b"[") or file.lower().endswith(_TEXTS):
        return "a text file; name a file of weights"
    return ""


def _archive(file: str) -> str:
    """What a ZIP archive is that is no checkpoint of torch.save; "" if it looks like one."""
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        pickles = [name for name in names if name.endswith("/data.pkl")]
        protocols = [archive.read(name)[1:2] for name in pickles]
    if any(name.endswith("/constants.pkl") for name in names):
        return (
            "a TorchScript program, which holds code; where it was made, save the weights alone:"
            " torch.save({'model': model.state_dict()}, ...)"
        )
    if pickles:
        return _TOO_NEW if max(protocols) in (b"\4", b"\5") else ""
    some = ", ".join(" ".join(name.split())[:60] for name in names[:3]) or "nothing"
    return f"a ZIP archive without weights of PyTorch ({some}); unpack it, or name another file"


def check_whole(path: str, file: str) -> None:
    """Refuse one of the several files that a model's weights were divided into.

    Raises:
        CheckpointError: the name of the file says so.
    """
    part = _PART.search(file)
    if part and int(part[2]) > 1:
        raise CheckpointError(
            f"The checkpoint {path} is part {int(part[1])} of {int(part[2])} of a model's weights;"
            " name the folder that holds all of them and their list (...index.json)."
        )


def read_parts(file: str, read: Callable[[str], Any]) -> dict[str, Any]:
    """The weights of a model that lie in several files, by their list.

    Args:
        file: the list, of Hugging Face's form: ``{"weight_map": {weight: name of a file}}``.
        read: reads one of the files, which lie beside the list.

    Raises:
        CheckpointError: the list cannot be read, or a weight is not in the file that it names.
    """
    try:
        places = json.loads(Path(file).read_text(encoding="utf-8"))["weight_map"]
        names = {str(name): os.path.basename(str(place)) for name, place in places.items()}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"The list {file} of a model's files has no 'weight_map'; copy it again, or name a"
            " file of weights."
        ) from error
    folder = os.path.dirname(file)
    parts = {name: read(os.path.join(folder, name)) for name in sorted(set(names.values()))}
    absent = [weight for weight, name in names.items() if weight not in parts[name]]
    if absent:
        raise CheckpointError(
            f"{len(absent)} weights that {file} lists are not in their files, {absent[0]!r:.200}"
            " first; copy the whole folder again."
        )
    return {weight: parts[name][weight] for weight, name in names.items()}


def folder_advice(folder: str) -> str:
    """What a folder without a model's weights holds instead; the end of a message."""
    names = sorted(os.listdir(folder))
    if any(name.endswith(".distcp") for name in names):
        return (
            "it is a distributed checkpoint of PyTorch, which becomes one file by: python -m"
            " torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER FILE"
        )
    if "zero_to_fp32.py" in names:
        return "it is a checkpoint of DeepSpeed, which its zero_to_fp32.py turns into one file."
    files = [name for name in names if name.endswith((".pth", ".pt", ".safetensors", ".bin"))]
    return f"name a file in it, e.g. {files[-1]}." if files else "name a file."
