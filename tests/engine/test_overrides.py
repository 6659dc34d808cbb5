"""Overrides: what has one plain meaning is taken, and anything else is a sentence."""

import os
from pathlib import Path

import pytest

from kddetr.engine import ConfigError, check_writable, load_config

DATA = """
from collections import Counter
from detectron2.config import LazyCall as L
from kddetr.data import load_coco_format
model = L(Counter)(kind="a", size=3, table=dict(a=1), empty=None, part=L(Counter)(b=1))
dataloader = dict(test=L(load_coco_format)(json_file="", image_root=""))
"""
ROOT_KEY = "dataloader.test.image_root"


@pytest.fixture
def file(tmp_path) -> str:
    path = tmp_path / "mine.py"
    path.write_text(DATA)
    return str(path)


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("2024", "2024"),
        ("2024_01", "2024_01"),  # not 202401
        ("1.50", "1.50"),
        ("1e3", "1e3"),
        ("true", "true"),
        ("nan", "nan"),
        ("'null'", "null"),
        ("'a,b'", "a,b"),
        ("'[a]'", "[a]"),
        ("'2024'", "2024"),
        (" a b ", "a b"),
        ("a=b", "a=b"),
        ("Bilder/München", "Bilder/München"),
        ("~/images", os.path.expanduser("~/images")),
        ("'~/images'", os.path.expanduser("~/images")),
        ("a~b", "a~b"),
    ],
)
def test_a_path_is_a_text(file, given, read):
    cfg = load_config(file, [f"{ROOT_KEY}={given}", f"train.output_dir={given}"])
    assert cfg.dataloader.test.image_root == cfg.train.output_dir == read
    # Without an annotation the value in the file says that it is a text.
    assert load_config(file, [f"model.kind={given}"]).model.kind == read


@pytest.mark.parametrize(
    ("override", "words"),
    [
        (f"{ROOT_KEY}=null", "must be of type str, not null; a text is written in two quotes"),
        (f"{ROOT_KEY}=[a]", "must be of type str, not ['a']; a text is written in two quotes"),
        (f"{ROOT_KEY}=a,b", f"\"{ROOT_KEY}='a,b'\""),
        (f"{ROOT_KEY}==a", f"two equality signs: write {ROOT_KEY}=a."),
        (f"{ROOT_KEY}='a", "quote"),
        ("model.size=1,2", "a list is model.size=[1,2]"),
        ("model.size=choice(1,2)", "gives several values"),
        ("model.size=range(1,5)", "gives several values"),
        ("model.size=interval(0,1)", "gives several values"),
        ("model.size=glob(*)", "gives several values"),
        ("train.max_iter=1,000", "a number has no comma"),
        ("model@x.size=1", "write key=value"),
        ("model/size=1", "Unknown key model/size"),
        ("=5", "Unknown key"),
        ("model.size==3", "write model.size=3."),
        ("model.size=1\n2", "a line break"),
        ("model=5", "model is a group of keys and cannot be the single value 5"),
        ("model.part=true", "model.part is a group of keys"),
        ("model.part={}", "model.part is a group of keys"),
        ("train.amp=true", "such as train.amp.enabled"),
        ("train.amp={}", "such as train.amp.enabled"),
        ("train.clip_grad=null", "train.clip_grad is a group of keys"),
        ("model.size={a: 1}", "has no keys of its own"),
        ("model.size=${nothing}", "model.size cannot be resolved (Interpolation key 'nothing'"),
        ("model.size=${unknown:1}", "cannot be resolved"),
        ("model.size=${oc.env:NOT_SET_HERE}", "cannot be resolved"),
        ("model.size=${model.size}", "cannot be resolved"),
        ("model.size=${", "cannot be"),
        ("model.size=???", "model.size cannot be resolved"),
        ("train.max_iter=${foo}", "train.max_iter cannot be resolved"),
        ("train.seed=-1", "train.seed must be at least 0"),
        ("train.output_dir=' '", "train.output_dir is empty"),
        ("train.output_dir= ", "train.output_dir is empty"),
    ],
)
def test_what_has_no_plain_meaning_is_a_sentence(file, override, words):
    with pytest.raises(ConfigError) as error:
        load_config(file, [override])
    assert words in str(error.value) and "\n" not in str(error.value)


def test_an_empty_dictionary_replaces_a_plain_one(file):
    assert load_config(file, ["model.table={}"]).model.table == {}


def test_the_last_of_two_overrides_counts_and_is_named(file, caplog):
    cfg = load_config(file, ["train.max_iter=5", "train.seed=1", "train={max_iter: 6}"])
    assert cfg.train.max_iter == 6
    assert ["train.max_iter is overridden twice" in text for text in caplog.messages] == [True]


def test_the_home_folder_in_every_path(tmp_path, monkeypatch):
    """In a file, in lists and in nested calls; and in the path of the config itself."""
    monkeypatch.setenv("HOME", str(tmp_path))
    text = DATA + "model.paths = ['~/a', dict(b='~/b')]\ntrain = dict(init_checkpoint='~/c.pth')"
    Path(tmp_path / "mine.py").write_text(text)
    cfg = load_config("~/mine.py")
    assert cfg.model.paths == [f"{tmp_path}/a", {"b": f"{tmp_path}/b"}]
    assert cfg.train.init_checkpoint == f"{tmp_path}/c.pth"


def test_an_output_folder_that_cannot_be_written_to(tmp_path):
    check_writable(str(tmp_path / "new" / "folder"))
    assert (tmp_path / "new" / "folder").is_dir()
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "inside", Path("/proc/x")):
        with pytest.raises(ConfigError, match=r"train\.output_dir=.* cannot be written to"):
            check_writable(str(folder))


def test_a_name_with_dots_in_it_is_one_key(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "model = dict(_target_='builtins.dict', factors={'a.b': 1, 'a.b.c': 2, 'd': 3})"
    )
    for override, found in (
        ("model.factors.a.b=5", [5, 2, 3]),
        ("model.factors.a.b.c=5", [1, 5, 3]),
        ("model.factors={a.b:5,d:6}", [5, 2, 6]),
        ("+model.factors.a.b=5", [5, 2, 3]),
    ):
        assert list(load_config(str(path), [override]).model.factors.values()) == found
    with pytest.raises(ConfigError, match=r"has no 'a'; known are a\.b, "):
        load_config(str(path), ["model.factors.a.x=1"])


def test_a_key_in_an_argument_that_is_not_set(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("model = dict(_target_='kddetr.points.JointSampler')")
    with pytest.raises(ConfigError, match=r"model\.samplers is an argument that .* as a whole"):
        load_config(str(path), ["model.samplers.0.count=1"])
