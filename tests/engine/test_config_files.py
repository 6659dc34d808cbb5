"""Config files: imports from anywhere; a mistake in one is a sentence with its file and line."""

import sys
from pathlib import Path

import pytest
import torch
from detectron2.data import DatasetCatalog
from omegaconf import OmegaConf

from kddetr.engine import ConfigError, build, load_config
from kddetr.engine.run_folder import save_config

ROOT = Path(__file__).parents[2]
GOOD = "from configs.quickstart.alone import dataloader, lr_multiplier, model, optimizer, train\n"


def write(folder: Path, text: str | bytes, name: str = "mine.py") -> str:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("from .base import models", 1, "base.py has no 'models'; did you mean model?"),
        ("from .bass import model", 1, "bass.py does not exist; did you mean base?"),
        ("from .base import *", 1, "list the names"),
        ("from . import base", 1, "is a folder: import names from a file in it"),
        ("from .. import base", 1, "is a folder"),
        ("x = 1\nfrom .base import model\ny = (", 3, "'(' was never closed"),
        ("if True:\nx = 1", 2, "expected an indented block"),
        ("from .base import model\nimport not_there", 2, "there is no module not_there"),
        ("import os.nothing", 1, "there is no module os.nothing"),
        ("import beside", 1, "write `from .beside import ...`"),
        ("from configs.quickstart.alon import train", 1, "alon.py does not exist; did you mean al"),
        ("from configs.quickstart import alone", 1, "is a folder"),
        ("import configs.quickstart.alone", 1, "as in `from configs.quickstart.alone import"),
        ("from configs.quickstart.alone import modle", 1, "did you mean model?"),
        ("from kddetr.losses import nothing", 1, "cannot import name 'nothing'"),
        ("from kddetr.engine.errors import ConfigError", 1, "is now called kddetr.errors"),
        ("from .base import train\ntrain.a.b = 1", 2, "Error"),
        ("x = {}\n\nx['a']", 3, "KeyError: 'a'"),
        ("raise SystemExit(3)", 1, "SystemExit: 3"),
        ("from .circle import a", 1, "in a circle"),
        ("from .broken import a", None, "broken.py, line 2: ZeroDivisionError"),
        (b"model = dict(a='\xff')", None, "'utf-8' codec can't decode"),
        (b"model = {}\0", None, "null bytes"),
    ],
)
def test_a_mistake_is_a_sentence_with_file_and_line(tmp_path, monkeypatch, text, line, words):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "model = dict(a=1)\ntrain = dict(max_iter=3)\n", "base.py")
    write(tmp_path, "", "beside.py")
    write(tmp_path, "a = 1\n1 / 0", "broken.py")
    write(tmp_path, "from .mine import b\na = 1", "circle.py")
    file = write(tmp_path, text)
    with pytest.raises(ConfigError) as error:
        load_config(file)
    assert words in str(error.value) and "\n" not in str(error.value)
    in_circle = "circle" in words  # which is reported where it closes
    assert line is None or in_circle or str(error.value).startswith(f"{file}, line {line}: ")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds no config"),
        ("x = 1", "holds no config"),
        ("train = 5", "train is a int, but a section is"),
        ("import torch\nmodel = torch.nn.ReLU()", "model is a ReLU, but a section is a LazyCall"),
        ("model = []", "model is a list"),
    ],
)
def test_a_file_without_sections(tmp_path, text, words):
    with pytest.raises(ConfigError, match=words):
        load_config(write(tmp_path, text))


def test_a_folder_and_a_file_that_is_not_text(tmp_path):
    with pytest.raises(ConfigError, match="is a folder: name a file in it"):
        load_config(str(tmp_path))
    with pytest.raises(ConfigError, match="cannot be read as plain YAML"):
        load_config(write(tmp_path, b"train: \xff\xfe\n", "config.yaml"))
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(write(tmp_path, "train: &a [*a]\n", "config.yaml"))


def test_configs_are_imported_from_any_folder(tmp_path, monkeypatch):
    """The same as a relative import inside the project, and a folder of the same name comes first;
    what one file changes is not seen by another one.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(ROOT)  # as in train_net.py: Python could import configs/ itself
    ours = load_config(str(ROOT / "configs/quickstart/alone.py"))
    file = write(tmp_path, GOOD + "train.log_period = 3", "mine/configs/deep/mine.py")
    mine = load_config(file)
    ours.train.log_period = 3
    assert OmegaConf.to_container(mine) == OmegaConf.to_container(ours)
    assert load_config(str(ROOT / "configs/quickstart/alone.py")).train.log_period == 20
    write(tmp_path, "train = dict(max_iter=7)", "mine/configs/base.py")
    both = write(tmp_path, "from configs.base import train\n", "mine/configs/deep/both.py")
    assert load_config(both).train.max_iter == 7


def test_configs_are_imported_without_the_project_on_pythons_path(tmp_path, monkeypatch):
    """Such as in a notebook of one's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [p for p in sys.path if not (Path(p) / "configs").is_dir()])
    found = load_config(write(tmp_path, GOOD))
    assert found.train == load_config(str(ROOT / "configs/quickstart/alone.py")).train


def test_a_package_beside_the_config(tmp_path):
    write(tmp_path, "from .inner import steps\n", "parts/__init__.py")
    write(tmp_path, "steps = 7\n", "parts/inner.py")
    text = GOOD + "from .parts import steps\ntrain.max_iter = steps\n"
    assert load_config(write(tmp_path, text)).train.max_iter == 7


def test_numbers_of_numpy_and_objects_of_pathlib(tmp_path):
    """They are saved as Python's numbers, and as text where a text is wanted."""
    text = GOOD + "import numpy as np\nfrom pathlib import Path\n"
    text += "train.max_iter, train.output_dir = np.int64(7), Path('a') / 'b'\n"
    text += "optimizer.lr, optimizer.betas = np.float32(0.5), list(np.linspace(0, 0.5, 2))\n"
    text += "dataloader.train.mapper.bits = np.uint8(12)\n"
    text += "model.anchor_size = '${optimizer.lr}'\n"
    cfg = load_config(write(tmp_path, text))
    save_config(cfg, str(tmp_path))
    for found in (cfg, load_config(str(tmp_path / "config.yaml"))):
        values = found.train.max_iter, found.optimizer.lr, *found.optimizer.betas, found.model
        assert values[:4] == (7, 0.5, 0.0, 0.5) and found.model.anchor_size == 0.5
        assert {type(v) for v in values[:4]} == {int, float}
        assert found.train.output_dir == "a/b" and found.dataloader.train.mapper.bits == 12


def test_an_object_in_a_config_does_not_keep_a_run_from_starting(tmp_path, caplog):
    """PyTorch's types cannot be written as YAML; a file with one is no config to load."""
    text = "from collections import Counter\nimport torch\n"
    text += "from detectron2.config import LazyCall as L\n"
    text += "model = L(Counter)(a=torch.float16, b=torch.nn.GELU, c=[lambda x: x], d=1)\n"
    cfg = load_config(write(tmp_path, text))
    save_config(cfg, str(tmp_path))
    assert build(cfg.model)["a"] is torch.float16
    assert "torch.float16" in (tmp_path / "config.yaml").read_text()
    assert [p.name for p in tmp_path.iterdir() if "tmp" in p.name or "pkl" in p.name] == []
    assert not [r for r in caplog.records if r.exc_info]
    with pytest.raises(ConfigError, match=r"holds an object.* use the original"):
        load_config(str(tmp_path / "config.yaml"))


def test_a_file_can_register_a_data_set_and_be_loaded_twice(tmp_path):
    text = "from detectron2.data import DatasetCatalog\n"
    text += "DatasetCatalog.register('registered_in_a_file', lambda: [])\nmodel = {}\n"
    file = write(tmp_path, text)
    for _ in range(2):
        load_config(file)
        assert "registered_in_a_file" in DatasetCatalog
    DatasetCatalog.remove("registered_in_a_file")


def test_lazy_config_inside_of_a_file(tmp_path):
    write(tmp_path, "model = dict(_target_='builtins.dict', a=1)\nrest = dict(b=2)\n", "base.py")
    text = "from detectron2.config import LazyConfig\n"
    text += "model = LazyConfig.load_rel('base.py').model\n"
    text += f"(rest,) = LazyConfig.load({str(tmp_path / 'base.py')!r}, ('rest',))\nmodel.c = rest.b"
    assert load_config(write(tmp_path, text)).model == {"_target_": "builtins.dict", "a": 1, "c": 2}
    with pytest.raises(ConfigError, match=r"mine\.py, line 2: .*none\.py does not exist"):
        load_config(write(tmp_path, text.replace("'base.py'", "'none.py'")))


OWN = """
import functools
from collections import Counter
from detectron2.config import LazyCall as L
from .beside import Beside

class Outer:
    class Inner:
        def __init__(self, n=1):
            self.n = n

def make():
    def inner():
        return 1
    return inner

"""


@pytest.mark.parametrize(
    ("model", "is_found"),
    [
        ("L(Outer.Inner)(n=2)", True),
        ("L(Beside)(n=2)", True),
        ("L(Counter)(a=2)", True),
        ("L(lambda: 2)()", False),
        ("L(make())()", False),
        ("L(functools.partial(Outer.Inner, n=2))()", False),
        ("L(Counter)(a=Outer())", False),
    ],
)
def test_what_a_saved_config_cannot_hold_is_said_at_once(tmp_path, caplog, model, is_found):
    from detectron2.config import LazyConfig

    write(tmp_path, "class Beside:\n    def __init__(self, n): self.n = n\n", "beside.py")
    file = write(tmp_path, f"{OWN}model = L(Counter)(part={model})\n", f"own{len(model)}.py")
    cfg = load_config(file)
    build(cfg.model)
    warned = [text for text in caplog.messages if "cannot be saved in config.yaml" in text]
    assert bool(warned) is not is_found
    LazyConfig.save(cfg, str(tmp_path / "config.yaml"))
    if is_found:
        part = build(load_config(str(tmp_path / "config.yaml")).model)["part"]
        assert getattr(part, "n", None) == 2 or part["a"] == 2
    else:
        assert "model.part" in warned[0] and file in warned[0]
        with pytest.raises(ConfigError):
            load_config(str(tmp_path / "config.yaml"))
