"""Checkpoint files as people have them: loaded as they say, or refused in a sentence.

No code of a file runs. Where a file is loaded completely, each weight has the value that the file
has under its name; where it is loaded in part, the other weights stay as they were.
"""

import contextlib
import copy
import math
import os
import pickle
import random
import shutil
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.engine import HookBase
from engine_toy import toy_config, write_dataset
from torch import nn

from kddetr.checkpoint import Checkpointer, load_pretrained
from kddetr.engine import Trainer
from kddetr.errors import CheckpointError, DivergedError, UserError
from tests.fuzz.hunt import BrokenError, Edit, hunt
from tests.fuzz.odd_checkpoints import (
    ARCHIVES,
    CONTAINERS,
    DTYPES,
    FORMATS,
    PREFIXES,
    SHAPES,
    SUFFIXES,
    VALUES,
    WHOLE,
    Canary,
    OtherCanary,
    content,
    written,
)
from tests.tiny import tiny_detector

FILE = "model_0000003.pth"
# May be missing in a file: the config has them, or nothing reads them.
OPTIONAL = ("num_batches_tracked", "pixel_mean", "pixel_std")
NOTES = [
    "nowhere.pth",
    "",
    "\n",
    "..",
    "../x.pth",
    "model_0000003",
    "\0",
    "a\nb",
    "\udcff",
    "x" * 999,
]


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
            (
                "put",
                (*path[:-1], rng.choice(["x", "", 7, "\u00fc", "a\nb", None, "settings"])),
                value,
            ),
            ("drop", path),
            ("move", weight, (*weight[:-1], rng.choice([other[-1], "x", weight[-1].upper()]))),
            ("prefix", rng.choice(PREFIXES), rng.random() < 0.8),
            ("prefix", rng.choice(PREFIXES), True),
            ("container", rng.choice(CONTAINERS), rng.random() < 0.3),
            ("container", rng.choice(CONTAINERS), False),
            ("dtype", weight, dtype),
            ("dtype", None, dtype),
            ("shape", weight, rng.choice(list(SHAPES))),
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
            raise BrokenError(f"a weight that is not the file's: {_brief(key, value, *named)}")


def _brief(name: str, loaded: torch.Tensor, *stored: torch.Tensor) -> str:
    shapes = [f"{list(x.shape)} {x.dtype} {x.flatten()[:3]}" for x in (loaded, *stored)]
    return f"{name} is {shapes[0]}, and the file has {' and '.join(shapes[1:]) or 'none'}"


def _equal(loaded: torch.Tensor, stored: torch.Tensor) -> bool:
    if not _is_plain(stored):
        return False
    wide = torch.complex128 if stored.is_complex() else torch.float64
    a, b = loaded.to(wide), stored.to(wide)
    # A FrozenBatchNorm2d starts with variances of 1 - 1e-5, and of 1 where a file has none.
    return a.shape == b.shape and torch.allclose(a, b, rtol=2e-5, atol=1e-30, equal_nan=True)


def _is_plain(tensor: torch.Tensor) -> bool:
    return not (tensor.is_meta or tensor.is_quantized) and tensor.layout is torch.strided


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


@pytest.mark.parametrize("canary", [Canary(), OtherCanary()])
def test_the_canary_is_seen(here, canary):
    pickle.loads(pickle.dumps(canary))
    with pytest.raises(BrokenError, match="code of the file"):
        check_canary()
    check_canary()


@pytest.mark.examples(70, 0.7)
@pytest.mark.filterwarnings("ignore")
def test_files_of_detectors(here, request):
    model = tiny_detector("dab_detr", seed=1)
    before = copy.deepcopy(model.state_dict())
    Checkpointer(tiny_detector("dab_detr"), str(here)).save("right", iteration=3, note="x")
    right = torch.load("right.pth", weights_only=True)
    keys = [(outer, key) for outer in ("model", "settings") for key in right[outer]]
    keys += [("iteration",), ("note",), ("model",)]

    def check(edits: list[Edit]) -> None:
        model.load_state_dict(before)
        data = content(right, edits)
        file = here / f"file{next((e[1] for e in edits if e[0] == 'suffix'), '.pth')}"
        file.write_bytes(written(data, edits))
        how = next((edit[1] for edit in edits if edit[0] == "load"), "strict")
        try:
            if how == "teacher":
                load_pretrained(model, str(file))
            else:
                Checkpointer(model).load(str(file), strict=how == "strict")
        except CheckpointError:
            raise
        except UserError as error:
            raise BrokenError(f"another error than a CheckpointError: {error!r}") from error
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
        # Of a tensor of another kind, the next step shows whether it can be used.
        if _is_plain(loaded) and not _equal(loaded, torch.as_tensor(stored)):
            words = _brief(path, loaded, torch.as_tensor(stored))
            raise BrokenError(f"a state that is not the file's: {words}")
    elif isinstance(stored, int | float) and stored != loaded and not math.isnan(stored):
        raise BrokenError(f"a state that is not the file's: {path}={loaded}, not {stored}")


@pytest.mark.examples(30, 0.3)
@pytest.mark.filterwarnings("ignore")
def test_files_of_runs(here, request):
    write_dataset(here / "data", "fuzz_toy")
    cfg = toy_config(here, "fuzz_toy", distil=True, max_iter=4)
    cfg.train.checkpointer.period = 4
    Trainer(cfg).train()
    run = here / "run"
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
        with contextlib.suppress(_EnoughError, DivergedError):
            trainer.train()

    check([])
    hunt(lambda rng: draw(rng, list(paths(right)), True), check, request)
