"""Checkpoint files as people have them: loaded as they say, or refused in a sentence.

No code of a file runs. Where a file is loaded completely, each weight has the value that the file
has under its name; where it is loaded in part, the other weights stay as they were.
"""

import argparse
import collections
import copy
import io
import os
import pickle
import random
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.engine import HookBase
from engine_toy import toy_config, write_dataset
from omegaconf import OmegaConf
from safetensors.torch import save
from torch import nn

from kddetr.checkpoint import Checkpointer, load_pretrained
from kddetr.engine import Trainer
from kddetr.errors import DivergedError
from tests.fuzz.hunt import BrokenError, Edit, drop, hunt, put
from tests.tiny import tiny_detector

FILE = "model_0000003.pth"
# May be missing in a file: the config has them, or nothing reads them.
OPTIONAL = ("num_batches_tracked", "pixel_mean", "pixel_std")


class Canary:
    """Makes a folder when it is unpickled."""

    def __reduce__(self) -> tuple:
        return os.mkdir, ("canary",)

    def __repr__(self) -> str:
        return "Canary()"


VALUES: dict[str, Callable[[], Any]] = {
    "canary": Canary,
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
WHOLE = [b"", b" ", b"\x80", b"PK\x03\x04", b"PK\x05\x06" + b"\0" * 18, b"{}", b"<html>", b"\0" * 99]
WHOLE += [b"\x80\x02" + b"}U\x01a" * 9999 + b"}" + b"s" * 9999 + b"."]  # deeply nested
WHOLE += [b"\x80\x02}.", b"\x80\x04N.", b"(dp0\n.", b"cos\nmkdir\n(S'canary'\ntR.", b"garbage\n" * 9]
WHOLE += [b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", b"\x1f\x8b\x08" * 9]
WHOLE += [(2**40).to_bytes(8, "little") + b"{", (9).to_bytes(8, "little") + b'{"a":NaN}', b"I1\n."]
ARCHIVES = ["compressed", "other folder", "no folder", "twice", "two folders", "big", "comment"]
ARCHIVES += ["without version", "without data.pkl", "without data/0", "short data/0", "long data/0"]
NOTES = ["nowhere.pth", "", "\n", "..", "../x.pth", "model_0000003", "\0", "a\nb", "\udcff", "x" * 999]


def draw(rng: random.Random, keys: list[tuple], resume: bool) -> list[Edit]:
    """One to three edits of the content or of the bytes, and how the file is loaded."""
    edits = [_edit(rng, keys) for _ in range(rng.choice([1, 1, 2, 2, 3]))]
    if rng.random() < 0.3:
        edits.append(_damage(rng))
    if resume:
        note = ("note", rng.choice(NOTES))
        return [*edits, note] if rng.random() < 0.05 else edits
    return [*edits, ("load", rng.choice(["strict", "strict", "in part", "teacher"]))]


def _edit(rng: random.Random, keys: list[tuple]) -> Edit:
    path, other = rng.choice(keys), rng.choice(keys)
    weight = rng.choice([key for key in keys if key[0] == "model"])
    value, dtype = rng.choice(list(VALUES)), rng.choice(DTYPES)
    return rng.choice(
        [
            ("put", path, value),
            ("put", (path[0],), value),
            ("put", (*path[:-1], rng.choice(["x", "", 7, "\u00fc", "a\nb", None, "settings"])), value),
            ("drop", path),
            ("move", weight, (*weight[:-1], rng.choice([other[-1], "x", weight[-1].upper()]))),
            ("prefix", rng.choice(PREFIXES), rng.random() < 0.8),
            ("prefix", rng.choice(PREFIXES), True),
            ("container", rng.choice(CONTAINERS), rng.random() < 0.3),
            ("container", rng.choice(CONTAINERS), False),
            ("dtype", weight, dtype),
            ("dtype", None, dtype),
            ("shape", weight, rng.choice(["transposed", "flat", "unsqueezed", "half", "twice"])),
            ("arrays", rng.choice([None, weight])),
            ("format", rng.choice(FORMATS)),
            ("format", rng.choice(FORMATS)),
            ("suffix", rng.choice(SUFFIXES)),
        ]
    )


def _damage(rng: random.Random) -> Edit:
    return rng.choice(
        [
            ("cut", rng.random()),
            ("flip", rng.random(), rng.randrange(8)),
            ("flip", rng.random(), rng.randrange(8)),
            ("zeros", rng.random(), rng.choice([1, 16, 512])),
            ("append", rng.choice([b"\0", b"x" * 70000])),
            ("prepend", rng.choice([b"\0", b"#!/bin/sh\n"])),
            ("whole file", rng.choice(WHOLE)),
            ("archive", rng.choice(ARCHIVES)),
            ("archive", rng.choice(ARCHIVES)),
        ]
    )


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
        if isinstance(state.get(key), torch.Tensor):
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
        data["model"] = {key: value for key, value in list(state.items())[1:]}
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
    "arrays": lambda data, path: _changed(data, path, lambda x: x.detach().numpy()),
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
        state = _changed(data, None, lambda x: x if x.is_sparse else _array(x))
        raw = pickle.dumps(state, int(how.split()[1]))
    else:
        options = {"_use_new_zipfile_serialization": how != "legacy"}
        torch.save(data, stream, pickle_protocol=4 if how == "zip pickle 4" else 2, **options)
        raw = stream.getvalue()
    for name, *args in edits:
        if name in OF_BYTES:
            raw = OF_BYTES[name](raw, *args)
    return raw


def _array(x: torch.Tensor) -> Any:
    plain = x.dtype.is_floating_point and x.dtype.itemsize > 2 and not x.is_meta
    return x.detach().numpy() if plain and not x.is_quantized else x


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
            if how == "big" and name == "byteorder":
                inside = b"big"
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


def tensors(node: Any, name: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """All tensors and arrays in a content, by their last key."""
    if isinstance(node, torch.Tensor | np.ndarray):
        if not isinstance(node, np.ndarray) or node.dtype.kind in "biufc":
            yield name, torch.as_tensor(node)
    elif isinstance(node, dict):
        for key, value in node.items():
            yield from tensors(value, str(key))


def check_weights(model: nn.Module, before: dict, data: dict, *, whole: bool) -> None:
    """Check that each weight is the file's, or where not all is loaded as it was."""
    found = list(tensors(data))
    for key, value in model.state_dict().items():
        named = [t for name, t in found if name == key or name.endswith(f".{key}")]
        if not whole or key.endswith(OPTIONAL):
            named.append(before[key])
        if not any(_equal(value, tensor) for tensor in named):
            raise BrokenError(f"a weight that is not the file's: {key}={value}, of {named}")


def _equal(loaded: torch.Tensor, stored: torch.Tensor) -> bool:
    if stored.is_meta or stored.is_quantized or stored.layout is not torch.strided:
        return False
    wide = torch.complex128 if stored.is_complex() else torch.float64
    a, b = loaded.to(wide), stored.to(wide)
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-5, atol=1e-30, equal_nan=True)


def can_be_noticed(edits: list[Edit]) -> bool:
    """Whether a file's bytes are as they were written, or have checksums, as an archive has."""
    names = {edit[0] for edit in edits}
    if "whole file" in names or ("archive" in names and {"flip", "zeros"} & names):
        return False
    form = next((edit[1] for edit in edits if edit[0] == "format"), "zip")
    return form.startswith("zip") or not {"flip", "zeros", "prepend", "cut"} & names


class _EnoughError(Exception):
    """Ends a training after its first step."""


class _OneStep(HookBase):
    def after_step(self) -> None:
        raise _EnoughError


def check_canary() -> None:
    """Check that no code of a file has run."""
    if os.path.exists("canary"):
        os.rmdir("canary")
        raise BrokenError("code of the file was run")


@pytest.mark.examples(70, 0.7)
@pytest.mark.filterwarnings("ignore")
def test_checkpoints(tmp_path, monkeypatch, request):
    monkeypatch.chdir(tmp_path)
    model = tiny_detector("dab_detr", seed=1)
    before = copy.deepcopy(model.state_dict())
    Checkpointer(tiny_detector("dab_detr"), str(tmp_path)).save("right", iteration=3, note="x")
    right = torch.load("right.pth", weights_only=True)
    keys = [(outer, key) for outer in ("model", "settings") for key in right[outer]]
    keys += [("iteration",), ("note",), ("model",)]

    def check(edits: list[Edit]) -> None:
        model.load_state_dict(before)
        data = content(right, edits)
        file = tmp_path / f"file{next((e[1] for e in edits if e[0] == 'suffix'), '.pth')}"
        file.write_bytes(written(data, edits))
        how = next((edit[1] for edit in edits if edit[0] == "load"), "strict")
        try:
            if how == "teacher":
                load_pretrained(model, str(file))
            else:
                Checkpointer(model).load(str(file), strict=how == "strict")
        finally:
            file.unlink()
            check_canary()
        if can_be_noticed(edits):
            check_weights(model, before, data, whole=how != "in part")

    check([])
    hunt(lambda rng: draw(rng, keys, False), check, request)


def paths(node: Any, path: tuple = ()) -> Iterator[tuple]:
    """The paths of all entries of nested dictionaries and lists."""
    for key, value in node.items() if isinstance(node, dict) else enumerate(node):
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from paths(value, (*path, key))


def check_state(loaded: Any, stored: Any, path: str = "trainer") -> None:
    """Check that a run goes on with the state that the file has, where it has one."""
    if isinstance(loaded, dict) and isinstance(stored, dict):
        for key in loaded.keys() & stored.keys():
            check_state(loaded[key], stored[key], f"{path}.{key}")
    elif isinstance(loaded, torch.Tensor) and isinstance(stored, torch.Tensor | np.ndarray):
        if not _equal(loaded, torch.as_tensor(stored)):
            raise BrokenError(f"a state that is not the file's: {path}={loaded}, not {stored}")
    elif isinstance(loaded, int | float) and not loaded == stored and stored == stored:
        raise BrokenError(f"a state that is not the file's: {path}={loaded}, not {stored}")


@pytest.mark.examples(30, 0.3)
@pytest.mark.filterwarnings("ignore")
def test_resumed_checkpoints(tmp_path, monkeypatch, request):
    monkeypatch.chdir(tmp_path)
    write_dataset(tmp_path / "data", "fuzz_toy")
    cfg = toy_config(tmp_path, "fuzz_toy", distil=True, max_iter=4)
    cfg.train.checkpointer.period = 4
    Trainer(cfg).train()
    run = tmp_path / "run"
    right = torch.load(run / FILE, weights_only=True)

    def check(edits: list[Edit]) -> None:
        data = content(right, edits)
        shutil.rmtree(run)
        run.mkdir()
        (run / FILE).write_bytes(written(data, edits))
        note = next((edit[1] for edit in edits if edit[0] == "note"), FILE)
        (run / "last_checkpoint").write_text(note, errors="surrogateescape")
        trainer = Trainer(cfg)
        trainer.max_iter = 9
        before = copy.deepcopy(trainer.model.student.state_dict())
        try:
            trainer.resume_or_load(resume=True)
        finally:
            check_canary()
        if can_be_noticed(edits) and note == FILE:
            check_weights(trainer.model.student, before, data, whole=True)
            check_state(trainer.state_dict(), data.get("trainer"))
        trainer.register_hooks([_OneStep()])
        try:
            trainer.train()
        except (_EnoughError, DivergedError):
            pass

    check([])
    hunt(lambda rng: draw(rng, list(paths(right)), True), check, request)
