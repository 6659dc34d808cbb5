"""Overrides as people type them: what was meant is run, or it is refused in a sentence."""

import random
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from kddetr.engine import Trainer, build, load_config, require_sections
from tests.fuzz.hunt import Edit, hunt
from tests.fuzz.small_run import run, values_of, write_small_run

ROOT = Path(__file__).parents[2]

# Small, because a model of any size can be asked for.
NUMBERS = ["0", "-1", "1", "2", "3", "0.5", "-0.5", "1e-3", "2.0", "1e400", "nan", "inf", "-inf"]
LARGE = ["1e9", "9" * 30, "18446744073709551616", "-9223372036854775809", "1_000", "0x10", "1e18"]
WORDS = [
    *("true", "false", "null", "None", "True", "abc", "''", "'x'", '"a b"', "a b", "~", "-", "="),
    *("auto", "cpu", "cuda", "cuda:9", "meta", "mps", "bfloat16", "float16", "linear", "none"),
    *("bbox/AP", "bbox/AP-class1", "segm/AP", "AP", "pycocotools", "coco", "RGB", "BGR", "plain"),
    *("2024", "'2024'", "1.5", "'1'", "'true'", "0123", "1e3", "~/x", "./x", "../x", "x/y.pth"),
    *("x=y", "a:b", "a@b", "#", "%", "C:\\\\x", "\u00fc", "\U0001f600", "\n", "\t", "a\nb", "\0"),
]
LISTS = """
[] [1] [0.5] [0.9,0.1] [1,2,3] [null] [a,b] [[1]] [true] [bbox] [segm] [bbox,keypoints]
{} {a:1} {a:{b:2}} {lr:1} {0:1} {1:2} {_target_:builtins.dict}
""".strip().split()
GRAMMAR = """
a,b 1,2 choice(1,2) range(1,4) interval(0,1) glob(*) sort(3,1) int(5) float(3) str(5) bool(1) f(
json_str({}) shuffle(1,2) tag(a,1) extend(1) ${train.seed} ${train} ${nope} ${train.nope} ${..lr}
${.x} ${ ${} $ ${nope:1} ${oc.env:NO_SUCH_VARIABLE} ${oc.env:HOME} ${oc.decode:[} ${oc.select:x}
[ ] { } ( ) ' " \\ [1, {a {a: 'a , : a:b:c
""".strip().split()
ODD = """
= =5 train train= --resume -x train.seed .=1 .a=1 train.=1 train..seed=1 train[seed]=1 x.y.z=1 /=1
optimizer.betas[0]=0.5 optimizer.betas.-1=0.5 optimizer.betas.01=0.5 model/student=x a@b=c 1=2
train.seed:=1 'train.seed'=1 train.seed=1#2 _target_=x model._target_=kddetr.KDDETR
model._target_=os.sep
""".strip().split()
ODD += ["", " train.seed = 1 ", "train.seed =1", "train.seed=1 2", "\u00fc=1", "a" * 3000 + "=1"]

# Configs that come with the project; of these only the cheap parts are built.
SHIPPED = ["quickstart/distilled", "quickstart/faster_rcnn_alone", "detectors/dino_r50"]
SHIPPED += ["distill/custom", "detectors/cascade_rcnn_r50"]


def draw(rng: random.Random, right: Callable[[str], dict[str, Any]]) -> list[Edit]:
    """One to three overrides; ``right`` gives the values of a config, which they replace."""
    config = rng.choice(SHIPPED) if rng.random() < 0.2 else "small"
    number = rng.choice([1, 1, 1, 2, 3])
    texts = [rng.choice([_likely, _override])(rng, right(config)) for _ in range(number)]
    edits = [("override", text) for text in texts] + [("save",)] * (rng.random() < 0.2)
    return edits if config == "small" else [*edits, ("config", config)]


def _likely(rng: random.Random, right: dict[str, Any]) -> str:
    """A value of the kind that was there."""
    key = rng.choice([key for key, value in right.items() if not isinstance(value, list | dict)])
    if isinstance(right[key], bool):
        return f"{key}={rng.choice(['true', 'false'])}"
    kinds = {int: ["1", "2", "3", "4"], float: ["0.25", "1e-4", "0", "1"]}
    return f"{key}={rng.choice(kinds.get(type(right[key]), WORDS))}"


def _override(rng: random.Random, right: dict[str, Any]) -> str:
    if rng.random() < 0.1:
        return rng.choice(ODD)
    section = rng.choice(["train", "optimizer", "lr_multiplier", "dataloader", "model", ""])
    key = rng.choice([key for key in right if key.startswith(section)])
    numbers = NUMBERS if key.startswith(("model", "dataloader")) else NUMBERS + LARGE
    value = rng.choice(rng.choice([numbers, numbers, WORDS, LISTS, GRAMMAR]))
    sign = rng.choice([""] * 12 + ["+", "++", "~"])
    form = rng.random()
    if form < 0.06:
        key = f"{key}.{rng.choice(['0', 'x', '-1', '_target_', ''])}"
    elif form < 0.12:
        place = rng.randrange(len(key))
        key = key[:place] + rng.choice(["", "x", ".", "..", "-", "_"]) + key[place + 1 :]
    elif form < 0.15:
        outer, _, inner = key.rpartition(".")
        return f"{sign}{outer or 'train'}={{{inner}: {value}}}"
    return f"{sign}{key}={value}" if rng.random() < 0.97 else f"{sign}{key}"


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    write_small_run(folder)
    return folder / "small.py"


def run_shipped(name: str, overrides: list[str]) -> None:
    """Load a large config, and build what takes no time."""
    cfg = load_config(str(ROOT / f"configs/{name}.py"), overrides)
    require_sections(cfg, "model", "optimizer", "lr_multiplier", "dataloader.train")
    Trainer.build_lr_scheduler(cfg, torch.optim.SGD([torch.zeros(1)], lr=0.1))
    for loader in (cfg.dataloader.train, cfg.dataloader.test):
        build(loader.mapper)


@pytest.mark.examples(28, 0.5)
@pytest.mark.filterwarnings("ignore")
def test_overrides(small, here, request):
    @cache
    def right(name: str) -> dict[str, Any]:
        return values_of(small if name == "small" else ROOT / f"configs/{name}.py")

    def check(edits: list[Edit]) -> None:
        overrides = [edit[1] for edit in edits if edit[0] == "override"]
        config = next((edit[1] for edit in edits if edit[0] == "config"), None)
        if config:
            run_shipped(config, overrides)
        else:
            run(str(small), overrides, right("small"), save=("save",) in edits)

    check([])
    hunt(lambda rng: draw(rng, right), check, request)
