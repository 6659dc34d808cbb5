"""Classes and functions written in a config file: the saved config of a run finds them again."""

from pathlib import Path

import pytest
import torch
from detectron2.config import LazyConfig

from kddetr.engine import ConfigError, Trainer, build, load_config

OWN = """
import dataclasses
import torch
from detectron2.config import LazyCall as L
from .beside import Beside, BesideData

class Own(engine_toy.ToyDetector):
    def forward(self, batch):
        return super().forward(batch)

class WithoutMethods(engine_toy.ToyLoader):
    pass

@dataclasses.dataclass
class Data:
    size: int = 3

def optimizer_of(params, lr):
    return torch.optim.SGD(params, lr=lr)

model = L(Own)(num_classes=3)
dataloader.train = L(WithoutMethods)(total_batch_size=4)
optimizer = L(optimizer_of)(params=optimizer.params, lr=0.02)
train.max_iter = 2
"""
BESIDE = """
import dataclasses

class Beside:
    def __call__(self):
        return "beside"

@dataclasses.dataclass
class BesideData:
    size: int = 3
"""


@pytest.fixture
def config(toy, tmp_path) -> Path:
    """The toy, with classes and functions of its own, in a folder outside of the project."""
    path = Path(toy.write_config(tmp_path))
    path.write_text(path.read_text() + OWN)
    (tmp_path / "beside.py").write_text(BESIDE)
    return path


def test_a_run_resumes_from_its_own_config(config, tmp_path):
    cfg = load_config(str(config))
    Trainer(cfg).train()
    saved = tmp_path / "run/config.yaml"
    LazyConfig.save(cfg, str(saved))
    assert f"{config}.Own" in saved.read_text() and "builtins" not in saved.read_text()
    again = load_config(str(saved), ["train.max_iter=4"])
    trainer = Trainer(again)
    trainer.resume_or_load(resume=True)
    assert trainer.start_iter == 2
    trainer.train()
    assert type(trainer.model).__name__ == "Own"
    assert isinstance(trainer.optimizer, torch.optim.SGD)
    # The config that the resumed run saves is as good.
    LazyConfig.save(again, str(saved))
    assert type(build(load_config(str(saved)).model)).__name__ == "Own"


def test_each_is_found_in_the_file_it_is_written_in(config, tmp_path):
    text = (
        "model = L('builtins.dict')(a=L(Beside)(), b=L(Data)(size=4), c=[L(BesideData)(size=5)])\n"
    )
    config.write_text(config.read_text() + text)
    saved = str(tmp_path / "config.yaml")
    cfg = load_config(str(config))
    LazyConfig.save(cfg, saved)
    for loaded in (cfg, load_config(saved)):
        model = build(loaded.model)
        assert (model["a"](), model["b"].size, model["c"][0].size) == ("beside", 4, 5)
    text = Path(saved).read_text()
    assert f"{tmp_path}/beside.py.Beside" in text and f"{config}.Data" in text
    assert "_target_: builtins.dict" in text  # a true builtin stays one
    with pytest.raises(ConfigError, match=r"did you mean size\?"):
        load_config(str(config), ["model.b.sise=3"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda file: file.unlink(), "which does not exist: put it back"),
        (
            lambda file: file.write_text(file.read_text().replace("Own", "Renamed")),
            "in which there is no Own: put it back",
        ),
    ],
)
def test_a_file_or_class_that_is_gone(config, tmp_path, change, words):
    saved = tmp_path / "config.yaml"
    LazyConfig.save(load_config(str(config)), str(saved))
    change(config)
    with pytest.raises(ConfigError) as error:
        load_config(str(saved))
    assert str(config) in str(error.value) and words in str(error.value)
