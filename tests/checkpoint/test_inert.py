"""What training programs save beside the weights is read without any of its code."""

import argparse
import collections
import datetime
import pathlib
import pickle
import types

import numpy as np
import pytest
import torch
from detectron2.solver import WarmupParamScheduler
from fvcore.common.param_scheduler import MultiStepParamScheduler
from omegaconf import DictConfig, ListConfig, OmegaConf

from kddetr.checkpoint import CheckpointError, read_checkpoint, weights_of
from kddetr.checkpoint.inert import OBJECTS, plain
from tests.checkpoint.test_hostile_files import as_pth, checkpoint, text

WEIGHTS = {"a": np.ones(2, np.float32)}


def training_checkpoint() -> dict:
    """As the trainer of a LazyConfig project writes it."""
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))]).state_dict()
    optimizer["param_groups"][0] |= {"betas": ListConfig([0.9, 0.999]), "lr": np.float64(1e-4)}
    schedule = MultiStepParamScheduler([1, 0.1], milestones=[3, 5])
    return {
        "model": WEIGHTS,
        "trainer": {"iteration": np.int64(9), "_trainer": {"optimizer": optimizer}},
        "config": OmegaConf.create({"x": [1, {"y": 2.5}], "none": None, "ref": "${x}"}),
        "schedule": WarmupParamScheduler(schedule, 0.1, 0.1),
        "when": [datetime.datetime(2024, 1, 1), datetime.timedelta(1)],
        "args": argparse.Namespace(output_dir=pathlib.Path("x")),
        "history": collections.defaultdict(list, {"loss": [1, 2]}),
        "last": collections.deque([1, 2], 5),
        "version": torch.__version__,
        "options": types.SimpleNamespace(lr=0.1),
    }


def write(data: dict, file: pathlib.Path) -> None:
    if file.suffix == ".pkl":
        del data["trainer"]["_trainer"]["optimizer"]["state"]
        data.pop("args")
        file.write_bytes(pickle.dumps(data, 2))
    else:
        torch.save(data, file, _use_new_zipfile_serialization=file.stem != "old")


@pytest.mark.parametrize("name", ["x.pth", "old.pth", "x.pkl"])
def test_a_training_checkpoint_is_read_and_omegaconf_is_not_run(tmp_path, monkeypatch, name):
    write(training_checkpoint(), tmp_path / name)
    for kind in (DictConfig, ListConfig):
        failing = lambda *_: pytest.fail("omegaconf was run")  # noqa: E731
        monkeypatch.setattr(kind, "__setstate__", failing, raising=False)
    data = read_checkpoint(str(tmp_path / name))
    assert weights_of(data, name)["a"].tolist() == [1, 1]
    (group,) = data["trainer"]["_trainer"]["optimizer"]["param_groups"]
    assert group["betas"] == [0.9, 0.999] and type(group["betas"]) is list
    assert group["lr"] == 1e-4 and data["trainer"]["iteration"] == 9
    assert data["config"] == {"x": [1, {"y": 2.5}], "none": None, "ref": "${x}"}
    assert (data["history"], data["last"]) == ({"loss": [1, 2]}, [1, 2])
    assert type(data["history"]) is dict and type(data["last"]) is list


def test_a_pickle_cannot_change_the_stand_ins(tmp_path):
    """It may set the state of what it makes, and not that of the classes."""
    for kind, (module, name) in {kind: key for key, kind in OBJECTS.items()}.items():
        before = dict(vars(kind))
        for state in (b"}" + text("__new__") + b"Ns", b"N}" + text("content") + b"Ns\x86"):
            pickled = checkpoint(f"c{module}\n{name}\n".encode() + state + b"b")
            (tmp_path / "x.pkl").write_bytes(pickled)
            as_pth(pickled, tmp_path / "x.pth")
            for file in ("x.pkl", "x.pth"):
                with pytest.raises(CheckpointError):
                    weights_of(read_checkpoint(str(tmp_path / file)), file)
                assert dict(vars(kind)) == before


def test_containers_that_hold_themselves_are_walked_once():
    one: list = [1]
    one.append(one)
    assert plain(one) is one
    both = {"a": one}
    one.append(both)
    assert plain(both) is both
