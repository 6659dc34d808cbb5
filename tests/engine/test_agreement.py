"""The first contact of the processes of a job, and what they agree on before they train.

The processes are threads here, or what another one says is given; test_command_line starts real
ones.
"""

import importlib
import socket
import threading
from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.distributed as dist
from detectron2.utils import comm
from torch.multiprocessing import ProcessExitedException

from kddetr.engine import ConfigError, rendezvous
from kddetr.engine.agreement import all_or_none, fingerprint, require_same, require_same_config
from kddetr.engine.rendezvous import Member, check_url, meet
from kddetr.errors import DatasetError


@pytest.fixture
def others(monkeypatch):
    """A function that says what the other processes answer, two on each machine."""

    def answer(*said: Callable | object) -> None:
        monkeypatch.setattr(comm, "get_world_size", lambda: 1 + len(said))
        monkeypatch.setattr(comm, "get_local_size", lambda: 2)
        monkeypatch.setattr(
            comm, "all_gather", lambda mine: [mine, *(s(mine) if callable(s) else s for s in said)]
        )

    return answer


def test_an_error_in_one_process_is_an_error_in_all(others):
    others(None, None, "train.json is missing")
    with pytest.raises(ConfigError, match=r"machine 1: train\.json is missing"), all_or_none():
        pass
    with pytest.raises(DatasetError, match="own"), all_or_none():
        raise DatasetError("own")
    others(None, None)
    with all_or_none():
        pass


def test_what_processes_start_from_is_compared(others):
    facts = {"the last checkpoint": "model_0000007.pth"}
    others(facts, {"the last checkpoint": "missing"})
    sentence = (
        "On machine 1 the last checkpoint is missing, and on machine 0 it is model_0000007.pth:"
        " copy it."
    )
    with pytest.raises(ConfigError, match=sentence):
        require_same(facts, "copy it.")
    others({"the last checkpoint": "missing"})
    with pytest.raises(ConfigError, match="On process 1 the last"):
        require_same(facts, "copy it.")
    others(facts, facts)
    require_same(facts, "copy it.")


def test_configs_are_compared_but_for_paths(toy, tmp_path, others):
    cfg = toy.toy_config(tmp_path)
    others(lambda mine: mine | {"train.init_checkpoint": "/elsewhere/r50.pth"}, lambda mine: mine)
    cfg.train.init_checkpoint = "/here/r50.pth"
    with pytest.raises(ConfigError, match=r"train\.init_checkpoint"):
        require_same_config(cfg)  # it is no path in the other's answer only
    others(lambda mine: mine)
    require_same_config(cfg)
    others(lambda mine: mine, lambda mine: mine | {"optimizer.lr": "0.1"})
    with pytest.raises(ConfigError, match=r"machine 1 optimizer\.lr is 0\.1, and on .* 0\.02"):
        require_same_config(cfg)


def test_a_fingerprint_tells_values_and_their_order_apart():
    one = torch.arange(6.0).reshape(2, 3)
    prints = [
        fingerprint(tensors)
        for tensors in ([one], [one.clone()], [one.T], [one + 1e-7], [one.bfloat16()], [])
    ]
    assert prints[0] == prints[1] and len(set(prints)) == 5


def test_a_mistake_is_reported_once_on_each_machine(monkeypatch):
    launch = importlib.import_module("kddetr.engine.launch")  # the package has a function so named
    assert not launch.another_has_reported()  # a single process
    monkeypatch.setattr(launch, "_reports", dist.HashStore())
    monkeypatch.setattr(launch, "_HEARD", 0.2)
    assert not launch.another_has_reported()
    assert [launch._is_first_report(machine) for machine in (0, 0, 1)] == [True, False, True]
    assert launch.another_has_reported()


def test_a_process_that_is_gone_is_no_error_of_the_others():
    launch = importlib.import_module("kddetr.engine.launch")
    for text in (
        "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:545] Read error [10.0.0.1]:46",
        "ncclRemoteError: A call failed possibly due to a network error",
    ):
        assert launch.another_has_ended(RuntimeError(text))
    for text in ("CUDA error: out of memory", "ncclUnhandledCudaError: Call to CUDA failed"):
        assert not launch.another_has_ended(RuntimeError(text))


def test_a_killed_process_is_named(capsys):
    launch = importlib.import_module("kddetr.engine.launch")
    killed = {"exit_code": -9, "signal_name": "SIGKILL"}
    ended = partial(ProcessExitedException, "ended", error_index=1, error_pid=2)
    assert launch._exit_code(ended(exit_code=2)) == 2
    assert capsys.readouterr().err == ""
    assert launch._exit_code(ended(**killed)) == 137
    assert "Process 1 was ended by SIGKILL" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("127.0.0.1:2977", r"not of the form tcp://HOST:PORT"),
        ("tcp://:2977", "not of the form"),
        ("tcp://localhost", "not of the form"),
        ("file:///shared/file", "not of the form"),
        ("tcp://localhost:port", "is no address"),
        ("tcp://localhost:99999", "is no address"),
        ("tcp://no_such_host.invalid:2977", "the host no_such_host.invalid is not known"),
    ],
)
def test_a_wrong_address(url, words):
    with pytest.raises(ConfigError, match=words):
        check_url(url, serves=False)


def test_a_port_in_use_is_named():
    with socket.create_server(("", 0)) as server:
        url = f"tcp://localhost:{server.getsockname()[1]}"
        assert check_url(url, serves=False)[0] == "localhost"
        with pytest.raises(ConfigError, match="another job may use it"):
            check_url(url, serves=True)


def contacts(monkeypatch, *members: Member, timeout: float = 20.0) -> list[object]:
    """The errors of processes that meet, "" where there is none."""
    monkeypatch.setattr(rendezvous, "_POLL", 0.01)
    monkeypatch.setattr(rendezvous, "_PATIENCE", 0.05)
    monkeypatch.setattr(rendezvous, "_FAREWELL", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"tcp://127.0.0.1:{server.getsockname()[1]}"
    said: list = [None] * len(members)
    stores = []

    def join(index: int) -> None:
        try:
            stores.append(meet(url, members[index], timeout=timeout))
            said[index] = ""
        except ConfigError as error:
            said[index] = str(error)

    threads = [threading.Thread(target=join, args=(index,)) for index in range(len(members))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return said


def test_all_processes_meet(monkeypatch):
    members = [Member(machine, 2, process, 2) for machine in (1, 0) for process in (0, 1)]
    assert contacts(monkeypatch, *members) == [""] * 4


def test_who_is_missing_is_said(monkeypatch, caplog):
    (said,) = contacts(monkeypatch, Member(0, 3, 0, 1), timeout=0.3)
    missing = "2 processes (machine 1, machine 2)"
    assert f"waiting for {missing} at tcp://127.0.0.1" in caplog.text
    assert f"of waiting for {missing}" in said
    (said,) = contacts(monkeypatch, Member(1, 2, 0, 1), timeout=0.3)
    assert "machine 0, which does not listen yet" in said


def test_machines_with_other_numbers(monkeypatch):
    for said in contacts(monkeypatch, Member(0, 2, 0, 1), Member(1, 2, 1, 2)):
        assert "--num-gpus 2" in said and "give all machines the same numbers" in said
    for said in contacts(monkeypatch, Member(0, 3, 0, 1), Member(1, 3, 0, 1), Member(1, 3, 0, 1)):
        assert "Two machines were started with --machine-rank 1" in said
