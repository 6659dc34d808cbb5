"""A config that is written as a Python file is the same config when it is loaded again."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from detectron2.config import LazyCall as L
from omegaconf import OmegaConf

from kddetr.engine import load_config
from kddetr.engine.config.calls import located
from kddetr.errors import ConfigError
from kddetr.points import SpecificSampler
from kddetr.recipes import write_config
from kddetr.recipes.written import config_text

ROOT = Path(__file__).parents[2]


def plain(node: Any) -> Any:
    """A config in plain containers, whose calls are the functions and classes themselves."""
    if OmegaConf.is_config(node):
        node = OmegaConf.to_container(node, resolve=False)
    if isinstance(node, dict):
        return {k: located(v) if k == "_target_" else plain(v) for k, v in node.items()}
    return [plain(item) for item in node] if isinstance(node, list) else node


@pytest.mark.parametrize(
    "name",
    [
        "detectors/cascade_rcnn_r50",
        "distill/custom_faster_rcnn",
        "distill/custom_rtdetr",
        "quickstart/faster_rcnn_distilled",
        "evidence/trees_distilled",
    ],
)
def test_a_written_config_is_the_same(name, tmp_path):
    cfg = load_config(str(ROOT / f"configs/{name}.py"))
    file = tmp_path / "config.py"
    write_config(cfg, str(file), about="A config.", comments={"train.max_iter": "Long enough."})
    assert plain(load_config(str(file))) == plain(cfg)
    text = file.read_text()
    assert text.startswith('"""A config."""\n') and "configs." not in text
    assert "    # Long enough.\n" in text or cfg.train.max_iter == 90000  # the default
    assert max(map(len, text.splitlines())) <= 100


def test_values_of_every_kind(tmp_path):
    odd = {
        "a b": 1,
        "class": [True, None, float("inf"), -1.5e-7],
        "quoted": "a\"b'c\\d\n${train.seed}",
    }
    cfg = load_config(str(ROOT / "configs/detectors/dino_r18.py"))
    cfg.model = L(SimpleNamespace)(**odd, kind=torch.nn.ReLU, empty={}, nothing=[])
    cfg.train.classes = ["ä", "日本"]
    file = tmp_path / "config.py"
    write_config(cfg, str(file))
    values = {}
    exec(file.read_text(), values)
    assert plain(values["model"]) == plain(cfg.model)
    assert values["train"]["classes"] == ["ä", "日本"]


def test_two_classes_of_one_name_are_both_imported(tmp_path):
    module = tmp_path / "other_points.py"
    module.write_text("class SpecificSampler:\n    def __init__(self, count=1): ...\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        from other_points import SpecificSampler as Other

        cfg = OmegaConf.create(flags={"allow_objects": True})
        cfg.model = L(SimpleNamespace)(a=L(SpecificSampler)(), b=L(Other)(count=2))
        values = {}
        exec(config_text(cfg), values)
    assert values["model"].a["_target_"] is SpecificSampler
    assert values["model"].b["_target_"] is Other


@pytest.mark.parametrize("value", [lambda: 1, object()])
def test_what_no_file_can_state_is_refused(value):
    cfg = OmegaConf.create(flags={"allow_objects": True})
    cfg.model = L(SimpleNamespace)(part=value)
    with pytest.raises(ConfigError, match=r"^model.part is .* put it into a module"):
        config_text(cfg)
