"""Checkpoint files with oddities: their content after edits, and the bytes that are written."""

import argparse
import collections
import copy
import io
import os
import pickle
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf
from safetensors.torch import save
from torch import nn

from tests.fuzz.hunt import Edit, drop, put


class Canary:
    """Makes a folder when it is unpickled."""

    def __reduce__(self) -> tuple:
        return os.mkdir, ("canary",)

    def __repr__(self) -> str:
        return "Canary()"


class OtherCanary(Canary):
    """The same by another way."""

    def __reduce__(self) -> tuple:
        return exec, ("import os; os.mkdir('canary')",)


VALUES: dict[str, Callable[[], Any]] = {
    "canary": Canary,
    "other canary": OtherCanary,
    "canary in an array": lambda: np.array([Canary()], dtype=object),
    "nothing": lambda: None,
    "text": lambda: "text",
    "number": lambda: 7,
    "huge": lambda: 10**40,
    "negative": lambda: -5,
    "not a number": lambda: float("nan"),
    "yes": lambda: True,
    "empty list": list,
    "empty dictionary": dict,
    "list": lambda: [1, "a", None],
    "set": lambda: {1, 2},
    "bytes": lambda: b"\x00\xff",
    "tensor": lambda: torch.ones(3),
    "scalar": lambda: torch.tensor(2.0),
    "no element": lambda: torch.zeros(0, 3),
    "sparse": lambda: torch.eye(3).to_sparse(),
    "meta": lambda: torch.ones(3, device="meta"),
    "parameter": lambda: nn.Parameter(torch.ones(3)),
    "quantized": lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
    "array": lambda: np.ones((3, 2), np.float32),
    "object array": lambda: np.array([None, "a"], dtype=object),
    "texts": lambda: np.array(["a", "b"]),
    "numpy number": lambda: np.float64(0.25),
    "namespace": lambda: argparse.Namespace(lr=1, nheads="x", dilation=[1]),
    "ordered": lambda: collections.OrderedDict(a=torch.ones(2)),
    "defaults": lambda: collections.defaultdict(list, a=[1]),
    "list config": lambda: OmegaConf.create([0.9, 0.99]),
    "dictionary config": lambda: OmegaConf.create({"lr": 0.1, "a": {"b": [1]}}),
    "module": lambda: nn.Linear(2, 2),
    "type": lambda: torch.float16,
    "device": lambda: torch.device("cuda:3"),
    "size": lambda: torch.Size([1, 2]),
    "generator": lambda: np.random.RandomState(0).get_state(),
}
DTYPES = [torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool]
DTYPES += [torch.complex64, torch.float8_e4m3fn, torch.int8]
PREFIXES = ["module.", "_orig_mod.", "model.", "student.", "module.model.", "module.module.", "x."]
PREFIXES += ["detector.", "_fsdp_wrapped_module.", "0.", ".", "backbone.", "model"]
CONTAINERS = ["state_dict", "model_ema", "ema", "ema_model", "net", "params", "weights", "teacher"]
CONTAINERS += ["model_state", "ema_state", "blobs", "Model", ""]
FORMATS = ["zip", "legacy", "safetensors", *(f"pickle {n}" for n in range(6)), "zip pickle 4"]
SUFFIXES = [".pth", ".pt", ".pkl", ".bin", ".safetensors", ".ckpt", ".txt", "", ".pth.tar"]
WHOLE = [b"", b" ", b"\x80", b"{}", b"<html>", b"\0" * 99, b"garbage\n" * 9, b"\x1f\x8b\x08" * 9]
WHOLE += [b"PK\x03\x04", b"PK\x05\x06" + b"\0" * 18]  # archives that are cut off, and empty
WHOLE += [b"\x80\x02}.", b"\x80\x04N.", b"(dp0\n.", b"I1\n.", b"cos\nmkdir\n(S'canary'\ntR."]
WHOLE += [b"\x80\x02" + b"}U\x01a" * 9999 + b"}" + b"s" * 9999 + b"."]  # deeply nested
WHOLE += [b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"]
WHOLE += [(2**40).to_bytes(8, "little") + b"{", (9).to_bytes(8, "little") + b'{"a":NaN}']
ARCHIVES = ["compressed", "other folder", "no folder", "twice", "two folders", "comment"]
ARCHIVES += ["without version", "without data.pkl", "without data/0", "short data/0", "long data/0"]


def content(right: dict, edits: list[Edit]) -> dict:
    """The content of the right file after edits."""
    data = copy.deepcopy(right)
    for name, *args in edits:
        if name == "put":
            put(data, args[0], VALUES[args[1]]())
        elif name == "drop":
            drop(data, *args)
        elif name in CHANGES:
            data = CHANGES[name](data, *args)
    return data


def _weights(data: dict) -> dict:
    """The weights in a file's content, wherever other edits have put them."""
    found = next((data[key] for key in ("model", *CONTAINERS) if key in data), data)
    return found if isinstance(found, dict) else {}


def _changed(data: dict, path: tuple | None, change: Callable[[Any], Any]) -> dict:
    """Change one weight, or all of them; other entries stay."""
    state = _weights(data)
    for key in list(state) if path is None else [path[-1]]:
        if isinstance(state.get(key), torch.Tensor) and not state[key].is_quantized:
            state[key] = change(state[key])
    return data


def _moved(data: dict, path: tuple, new: tuple) -> dict:
    state = _weights(data)
    if path[-1] in state:
        state[new[-1]] = state.pop(path[-1])
    return data


def _prefixed(data: dict, prefix: str, every: bool) -> dict:
    state = _weights(data)
    for key in list(state)[: None if every else 3]:
        state[f"{prefix}{key}"] = state.pop(key)
    return data


def _contained(data: dict, container: str, both: bool) -> dict:
    """Put the weights under another name, or at the top; ``both`` keeps others under ``model``."""
    state = _weights(data)
    if not both and "model" in data:
        del data["model"]
    elif both:
        data["model"] = dict(list(state.items())[1:])
    return {**data, container: state} if container else {**data, **state}


SHAPES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "transposed": lambda x: x.transpose(0, -1) if x.ndim else x,
    "flat": torch.Tensor.flatten,
    "unsqueezed": lambda x: x[None],
    "half": lambda x: x[: len(x) // 2] if x.ndim else x,
    "twice": lambda x: torch.cat([x, x]) if x.ndim else x,
}
CHANGES: dict[str, Callable[..., dict]] = {
    "move": _moved,
    "prefix": _prefixed,
    "container": _contained,
    "dtype": lambda data, path, dtype: _changed(data, path, lambda x: x.to(dtype)),
    "shape": lambda data, path, how: _changed(data, path, SHAPES[how]),
    "arrays": lambda data, path: _changed(data, path, _array),
}


def written(data: dict, edits: list[Edit]) -> bytes:
    """The bytes of a file with a content, after edits of its format and of its bytes."""
    how = next((edit[1] for edit in edits if edit[0] == "format"), "zip")
    stream = io.BytesIO()
    if how == "safetensors":
        state = _weights(data)
        flat = {str(k): v for k, v in state.items() if type(v) is torch.Tensor and not v.is_meta}
        flat = {k: v.contiguous() for k, v in flat.items() if v.layout is torch.strided}
        raw = save({k: v for k, v in flat.items() if not v.is_quantized})
    elif how.startswith("pickle"):
        raw = pickle.dumps(_changed(data, None, _array), int(how.split()[1]))
    else:
        options = {"_use_new_zipfile_serialization": how != "legacy"}
        torch.save(data, stream, pickle_protocol=4 if how == "zip pickle 4" else 2, **options)
        raw = stream.getvalue()
    for name, *args in edits:
        if name in OF_BYTES:
            raw = OF_BYTES[name](raw, *args)
    return raw


def _array(x: torch.Tensor) -> Any:
    """A tensor as numpy's array, where numpy has its type."""
    has_type = x.dtype in (torch.float32, torch.float64, torch.float16, torch.int64, torch.bool)
    return x.detach().numpy() if has_type and x.layout is torch.strided and not x.is_meta else x


def _flipped(raw: bytes, place: float, bit: int) -> bytes:
    changed = bytearray(raw)
    if changed:
        changed[int(place * len(raw))] ^= 1 << bit
    return bytes(changed)


def _archived(raw: bytes, how: str) -> bytes:
    """An archive written anew, with an oddity."""
    if not zipfile.is_zipfile(io.BytesIO(raw)):
        return raw
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(raw)) as old, zipfile.ZipFile(stream, "w") as new:
        for entry in old.namelist():
            folder, _, name = entry.partition("/")
            inside = old.read(entry)
            if how == f"without {name}":
                continue
            if how == f"short {name}":
                inside = inside[: len(inside) // 2]
            if how == f"long {name}":
                inside *= 2
            folder = {"other folder": "x/", "no folder": ""}.get(how, f"{folder}/")
            packing = zipfile.ZIP_DEFLATED if how == "compressed" else zipfile.ZIP_STORED
            new.writestr(folder + name, inside, packing)
            if how in ("twice", "two folders"):
                new.writestr(("x/" if how == "two folders" else folder) + name, inside)
        new.comment = b"PK\x03\x04" if how == "comment" else b""
    return stream.getvalue()


OF_BYTES: dict[str, Callable[..., bytes]] = {
    "cut": lambda raw, share: raw[: int(share * len(raw))],
    "flip": _flipped,
    "zeros": lambda raw, share, n: raw[: (i := int(share * len(raw)))] + bytes(n) + raw[i + n :],
    "append": lambda raw, more: raw + more,
    "prepend": lambda raw, more: more + raw,
    "whole file": lambda raw, other: other,
    "archive": _archived,
}
