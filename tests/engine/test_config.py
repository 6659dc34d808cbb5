"""Config files and overrides are checked: sections, keys, types, arguments of LazyCalls."""

import builtins
from pathlib import Path

import pytest
from omegaconf import ListConfig, OmegaConf

from kddetr.engine import ConfigError, build, load_config, require_sections

HEAD = """
import torch
from collections import OrderedDict
from detectron2.config import LazyCall as L
"""


def write(folder: Path, text: str, name: str = "config.py") -> str:
    path = folder / name
    path.write_text(text)
    return str(path)


@pytest.fixture
def config(toy, tmp_path) -> str:
    return toy.write_config(tmp_path)


def test_file_and_overrides(config):
    cfg = load_config(
        config,
        [
            "train.max_iter=7",
            "optimizer.lr=0.5",
            "optimizer.betas.0=0.8",
            "model.width=4",  # an argument that the file leaves at its default
            "train.amp={enabled: true, dtype: float16}",
            "train.clip_grad.max_norm=null",
            "+train.note=mine",
        ],
    )
    assert (cfg.train.max_iter, cfg.optimizer.params.base_lr, cfg.model.width) == (7, 0.5, 4)
    assert cfg.optimizer.betas == [0.8, 0.99]
    assert cfg.train.amp == {"enabled": True, "dtype": "float16"}
    assert cfg.train.clip_grad.max_norm is None and cfg.train.note == "mine"
    assert cfg.train.best_metric == "bbox/AP"  # a default that the file does not set


def test_values_of_train_get_their_types_and_interpolations_stay(config):
    changes = ["train.max_iter=7", "train.clip_grad.norm_type=1", "train.output_dir=2024"]
    cfg = load_config(config, [*changes, "train.eval_period=${train.max_iter}"])
    assert cfg.train.max_iter == cfg.train.eval_period == 7
    assert isinstance(cfg.train.clip_grad.norm_type, float) and cfg.train.output_dir == "2024"
    cfg.train.max_iter = 5
    assert cfg.train.eval_period == 5
    with pytest.raises(ConfigError, match=r"train\.eval_period must be of type int, not 'auto'"):
        load_config(config, ["train.eval_period=${train.device}", "train.device=auto"])


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("trian.max_iter=3", "did you mean train?"),
        ("train.max_itr=3", "did you mean max_iter?"),
        ("train.amp={enbled: true}", "did you mean enabled?"),
        ("model.num_clases=3", "did you mean num_classes?"),
        ("train.max_iter.x=3", "is the value"),
        ("optimizer.betas.7=0.1", "a list of 2"),
        ("train.max_iter=abc", "type int"),
        ("train.max_iter=true", "type int"),
        ("train.max_iter=0", "at least 1"),
        ("train.amp.dtype=half", "bfloat16 or float16"),
        ("train.amp=true", "train.amp is a group of keys"),
        ("train=5", "train is a group of keys"),
        ("train.seed=-1", "train.seed must be at least 0"),
        ("train.seed=null", "type int"),
        ("train.clip_grad.max_norm=abc", "type float or null"),
        ("train.clip_grad.max_norm=-1", "train.clip_grad.max_norm must be at least 0, not -1.0"),
        ("train.clip_grad.max_norm=nan", "train.clip_grad.max_norm must be at least 0, not nan"),
        ("train.clip_grad.norm_type=0", "train.clip_grad.norm_type must be above 0, not 0.0"),
        ("train.clip_grad.norm_type=-2", "train.clip_grad.norm_type must be above 0, not -2.0"),
        ("train.checkpointer.max_to_keep=0", "at least 1, not 0"),
        ("train.ddp.find_unused_parameters=3.5", "type bool"),
        ("train.init_checkpoint=None", "init_checkpoint=null"),
        ("~train.seed", "not supported"),
        ("optimizer.lr=a=b?", "quote"),
    ],
)
def test_mistyped_override(config, override, words):
    with pytest.raises(ConfigError) as error:
        load_config(config, [override])
    assert words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("override", ["max_norm=0", "max_norm=null", "norm_type=inf"])
def test_values_at_the_edge_of_gradient_clipping(config, override):
    load_config(config, [f"train.clip_grad.{override}"])


def test_other_styles_of_override(config):
    with pytest.raises(ConfigError, match="put flags before"):
        load_config(config, ["train.seed=1", "--num-gpus", "2"])
    with pytest.raises(ConfigError, match=r"train\.seed=3 instead of 'train\.seed 3'"):
        load_config(config, ["train.seed", "3"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("train = dict(max_itr=3)", "did you mean max_iter?"),
        ("train = dict(amp=dict(enbled=True))", "train.amp.enbled"),
        ("optimiser = dict()", "did you mean optimizer?"),
        ("dataloader = dict(trian=dict())", "did you mean train?"),
        ("model = L(torch.nn.Linear)(in_feature=3)", "did you mean in_features?"),
        ("model = L(OrderedDict)(x=[L(torch.nn.ReLU)(inplac=True)])", "model.x.0.inplac"),
        ("model = L('torch.nn.Linearr')(a=1)", "torch.nn.Linearr cannot be found"),
        (
            "model = L(OrderedDict)(x=dict(a=L(torch.nn.ReLU)()))",
            "plain dictionary",
        ),
    ],
)
def test_mistake_in_file(tmp_path, text, words):
    with pytest.raises(ConfigError) as error:
        load_config(write(tmp_path, HEAD + text))
    assert words in str(error.value)


def test_missing_files_and_files_of_detectron2(tmp_path):
    write(tmp_path, "", "dab_detr.py")
    with pytest.raises(ConfigError, match=r"did you mean .*dab_detr\.py"):
        load_config(str(tmp_path / "dab_dert.py"))
    with pytest.raises(ConfigError, match="--config-file"):
        load_config("")
    zoo = write(tmp_path, '_BASE_: "../Base.yaml"\nMODEL:\n  WEIGHTS: x.pkl\n', "zoo.yaml")
    with pytest.raises(ConfigError, match="start from a file under configs"):
        load_config(zoo)
    for text in ("", "{}", "- train\n", "train\n"):
        with pytest.raises(ConfigError, match=r"empty\.yaml holds no config; name a \.py file"):
            load_config(write(tmp_path, text, "empty.yaml"))
    code = write(tmp_path, "train: !!python/object/apply:os.getcwd []\n", "code.yaml")
    with pytest.raises(ConfigError, match="plain YAML"):
        load_config(code)


def test_import_is_restored_when_a_file_raises(tmp_path):
    before = builtins.__import__
    with pytest.raises(ConfigError, match=r"config\.py, line 1: ZeroDivisionError: division"):
        load_config(write(tmp_path, "1 / 0"))
    assert builtins.__import__ is before


def test_a_saved_config_loads_again(config, tmp_path):
    from detectron2.config import LazyConfig

    cfg = load_config(config, ["train.max_iter=5", "+train.note=mine"])
    LazyConfig.save(cfg, str(tmp_path / "saved.yaml"))
    again = load_config(str(tmp_path / "saved.yaml"))
    assert OmegaConf.to_container(again.train) == OmegaConf.to_container(cfg.train)
    assert build(again.optimizer.params, model=build(again.model))[0]["lr"] == pytest.approx(0.01)


def test_build_passes_plain_containers():
    import collections

    from detectron2.config import LazyCall as L

    node = OmegaConf.create({"n": 3, "x": L(collections.Counter)(a=[1, "${...n}"])}).x
    built = build(node)
    assert built["a"] == [1, 3] and not isinstance(built["a"], ListConfig)


def test_parts_of_sections_are_dropped_unless_referred_to(tmp_path):
    text = "part = dict(n=1)\nkept = dict(m=2)\nmodel = L(OrderedDict)(a=part, b='${kept.m}')\n"
    file = write(tmp_path, HEAD + text)
    cfg = load_config(file, ["kept.m=3"])
    assert set(cfg) == {"kept", "model", "train"} and build(cfg.model)["b"] == 3
    with pytest.raises(ConfigError, match=r"Unknown key part\.n"):
        load_config(file, ["part.n=2"])


@pytest.mark.parametrize("key", ["dataloader.test", "dataloader.test.dataset"])
def test_without_test_data_there_is_no_evaluator_that_refers_to_them(key):
    custom = str(Path(__file__).parents[2] / "configs/distill/custom.py")
    cfg = load_config(custom, [f"{key}=null"])
    assert cfg.dataloader.evaluator is None
    OmegaConf.to_container(cfg, resolve=True)  # as it is saved
    assert load_config(custom).dataloader.evaluator is not None


def test_require_sections():
    with pytest.raises(ConfigError, match=r"no dataloader\.test"):
        require_sections(OmegaConf.create({"dataloader": {}}), "dataloader.test")


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("train", "0"),
        ("train", "'1e-3'"),
        ("evaluator", "True"),
        ("test", "dict(dataset=[])"),
    ],
)
def test_a_part_that_builds_nothing_is_refused(tmp_path, part, value):
    file = tmp_path / "mine.py"
    file.write_text(f"dataloader = dict({part}={value})\nmodel = None\n")
    with pytest.raises(ConfigError, match=r"dataloader\.\S+ is .*write it as a LazyCall"):
        load_config(str(file))
