"""Config files as people write them, and those that a run saved: run as meant, or refused."""

import copy
import random
from pathlib import Path
from typing import Any

import pytest
import yaml
from detectron2.config import LazyConfig

from kddetr.engine import load_config
from tests.fuzz.hunt import Edit, drop, hunt, put
from tests.fuzz.small_run import run, values, values_of, write_small_run

JUNK: list[Any] = [None, True, 0, -1, 0.5, 1e300, float("nan"), [], {}, [None], {"a": 1}, [[]]]
JUNK += ["", "text", "7", "1e-3", "${train.seed}", "${nope}", "${", "\u00fc", "a\nb", 10**30, "???"]
JUNK += [
    "os.system",
    "torch.nn.Linear",
    "kddetr.points.SpecificSampler",
    {"_target_": "builtins.dict"},
]
# Lines for a Python config.
LINES = """
import nowhere
import kddetr.nowhere
from kddetr import Nothing
from kddetr import *
from . import small
from . import nowhere
from .nowhere import x
from .. import x
from .other import model
from .other import nothing
from .other import *
from .broken import model
from configs.nowhere import model
from configs.common.optim import optimizer
from configs.common.optim import nothing
from configs.quickstart.distilled import lr_multiplier
from configs import common
from ..common.optim import optimizer
import configs.common.optim
import torch as model
def f(:
x = 'abc
1/0
undefined
raise KeyError
raise ValueError('a reason')
assert False, 'why'
train['max_itr'] = 3
train['max_iter'] = 'abc'
train.max_iter = 3
train = 5
train = None
del train
train = {}
train['amp'] = True
train['note'] = object()
model = None
del model
model = 5
model = deepcopy
model = [_detector]
model.student = None
model.teacher = _detector
model.weight = -1
model.wieght = 2
model.student.backbone = torch.nn.Identity()
model.student.num_classes = 4
optimizer = L(torch.optim.SGD)(lr=1)
optimizer = L(torch.optim.Nothing)()
optimizer = None
optimizer = []
lr_multiplier = L(dict)()
lr_multiplier = None
dataloader = {}
del dataloader['test']
del dataloader['train']
dataloader = []
dataloader['tset'] = 1
dataloader['evaluator'] = None
dataloader['train'] = None
dataloader['evaluator'].tasks = ['segm']
dataloader['train'].dataset.json_file = 5
dataloader['train'].total_batch_size = 'two'
dataloader['test'].dataset = []
import math
_x = 1
model.student.num_queries = 5
train['max_iter'] = 30
optimizer.lr = 0.001
lr_multiplier.milestones = [0.5]
model.weight = 0.5
trian = {}
models = 3
_private = object()
helper = lambda: 1
x = L(print)('a')
""".strip().split("\n")
LINES += ["x = ", "    x = 1", "\tx = 1", "\x00", "raise RuntimeError('a\\nreason')"]
LINES += ["class Own(torch.nn.Linear): pass\nmodel.student.extra = L(Own)()"]
LINES += ["def own(max_iter): return None\nlr_multiplier = L(own)(max_iter=3)"]
LINES += [
    "from dataclasses import dataclass\n@dataclass\nclass Own:\n    a: int = 1\nmine = L(Own)()"
]
LINES += ["import kddetr.losses\nclass Own(kddetr.losses.L1Loss): pass"]
LINES += [f"{LINES[-1]}\nmodel.loss.box_losses[0] = L(Own)(weight=1.0)"]
# Whole files, or their first lines, for a saved config.
TEXTS = """
{
[]
5
a
null
- 1
a: b: c
a: [
a: &x [*x]
%
<<: 1
MODEL: {}
_BASE_: x.yaml
1: 2
null: 3
x: 0o9
train: {max_iter: 3}
train: &a {amp: *a}
train: 2020-01-01
train: .nan
model: {_target_: }
model: !!python/object/apply:os.system [echo]
model: !!python/name:os.system
""".strip().split("\n")
TEXTS += ["", "\n", "\ta: 1", "? [a]\n: 1", "a: 1\na: 2", "[" * 3000]
WORDS = [("KDDETR", "KDETR"), ("import torch", "import torhc"), ("L(", "LL("), ("(", "[")]
WORDS += [("3", "x"), ("=", "=="), (",", ""), ("'", ""), ('"', "'"), ("kddetr.", "kdetr.")]
WORDS += [("step_schedule", "cosine_schedule"), ("num_classes", "num_class"), ("model", "modle")]
WORDS += [("\n", "\r\n"), ("    ", "\t"), (" ", "\u00a0"), ("weight", "wieght"), ("1", "-1")]
NAMES = ["small.py", "small", "small.txt", "small.yaml", "a b.py", "\u00fc.py", "small.PY", "1.py"]
NAMES += ["nowhere.py", "other", "", ".", "torch.py", "small.py/", "small.pyc", "a.b.py"]


def _draw_python(rng: random.Random) -> list[Edit]:
    return [
        rng.choice(
            [
                ("line", 0, rng.choice([*LINES, "from .small import model"])),  # from itself
                ("line", rng.choice([1, 30, 55, 75, 85]), rng.choice(LINES)),
                ("line", 999, rng.choice(LINES)),
                ("line", 999, rng.choice(LINES)),
                ("without", rng.randrange(110)),
                ("word", *rng.choice(WORDS), rng.randrange(6)),
                ("bytes", rng.choice(["bom", "latin-1", "utf-16", "null"])),
                ("cut", rng.randrange(4000)),
                ("name", rng.choice(NAMES)),
            ]
        )
        for _ in range(rng.choice([1, 1, 1, 2]))
    ] + [("save",)] * (rng.random() < 0.3)


def _draw_saved(rng: random.Random, paths: list[tuple]) -> list[Edit]:
    path, beside = rng.choice(paths), rng.choice(["x", "_target_", "max_itr", 0])
    return [
        rng.choice(
            [
                ("put", path, rng.choice(JUNK)),
                ("put", path, rng.choice(JUNK)),
                ("put", (*path[:-1], beside), rng.choice(JUNK)),
                ("drop", path),
                ("whole", rng.choice(TEXTS)),
                ("before", rng.choice(TEXTS)),
                ("without", rng.randrange(60)),
                ("word", *rng.choice(WORDS), rng.randrange(6)),
                ("bytes", rng.choice(["bom", "latin-1", "utf-16", "null"])),
                ("cut", rng.randrange(3000)),
            ]
        )
        for _ in range(rng.choice([1, 1, 2]))
    ]


def changed(text: str, edits: list[Edit]) -> bytes:
    """A file's text after edits, in bytes."""
    encoding, cut = "utf-8", None
    for name, *args in edits:
        lines = text.split("\n")
        if name == "line":
            lines.insert(args[0], args[1])
        elif name == "without" and args[0] < len(lines):
            del lines[args[0]]
        elif name == "cut":
            cut = args[0]
        text = "\n".join(lines)
        if name == "word":
            # The occurrence of that number, where there are as many.
            before, after, count = args
            parts = text.split(before)
            if count + 1 < len(parts):
                text = before.join(parts[: count + 1]) + after + before.join(parts[count + 1 :])
        elif name == "whole":
            text = args[0]
        elif name == "before":
            text = f"{args[0]}\n{text}"
        elif name == "bytes":
            encoding = {"bom": "utf-8-sig", "null": "utf-8"}.get(args[0], args[0])
            text += "\x00" if args[0] == "null" else "# \u00fc"
    return text.encode(encoding, "replace")[:cut]


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    write_small_run(folder)
    return folder / "small.py"


@pytest.mark.examples(16, 0.25)
@pytest.mark.filterwarnings("ignore")
def test_written_configs(small, here, request):
    right, text = values_of(small), small.read_text()
    beside = {"other.py": text, "broken.py": "from .nowhere import model"}

    def check(edits: list[Edit]) -> None:
        name = next((edit[1] for edit in edits if edit[0] == "name"), small.name)
        folder = here / "own"
        folder.mkdir()
        for other, content in beside.items():
            (folder / other).write_text(content)
        if (folder / name).name == name != "nowhere.py":
            (folder / name).write_bytes(changed(text, edits))
        run(f"own/{name}" if name else "", [], right, save=("save",) in edits)

    hunt(_draw_python, check, request)


@pytest.mark.examples(16, 0.25)
@pytest.mark.filterwarnings("ignore")
def test_saved_configs(small, here, request):
    LazyConfig.save(load_config(str(small)), "config.yaml")
    text = Path("config.yaml").read_text()
    tree = yaml.safe_load(text)
    right: dict[str, Any] = values_of(small)
    paths = [
        tuple(int(part) if part.isdigit() else part for part in key.split("."))
        for key, _ in values(tree)
    ]

    def check(edits: list[Edit]) -> None:
        new = yaml.safe_load(text)
        for kind, *args in edits:
            if kind in ("put", "drop"):
                {"put": put, "drop": drop}[kind](new, *copy.deepcopy(args))
        written = text if new == tree else yaml.safe_dump(new, width=9999)
        Path("config.yaml").write_bytes(changed(written, edits))
        run("config.yaml", [], right)

    hunt(lambda rng: _draw_saved(rng, paths), check, request)
