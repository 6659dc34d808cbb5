"""train_net.py on the command line: errors in one sentence, processes, a kill, evaluation."""

import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from detectron2.utils import comm

from kddetr.engine import ConfigError, launch, program
from kddetr.errors import DivergedError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def config(toy, tmp_path) -> str:
    return toy.write_config(tmp_path, distil=True)


def command(config: str, *arguments: str) -> subprocess.CompletedProcess:
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([*sys.path, str(ROOT / "projects/KDDETR")]),
    }
    program = [sys.executable, str(ROOT / "train_net.py"), "--config-file", config, *arguments]
    return subprocess.run(program, capture_output=True, text=True, env=environment, timeout=300)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train.max_itr=3"], "did you mean max_iter?"),
        (["train.seed=1", "--resume"], "put flags before"),
        (["--eval-only"], "--eval-only needs weights"),
        (["--eval-only", "train.init_checkpoint=none.pth"], "none.pth does not exist"),
        (["--num-gpus", "0"], "must be at least 1"),
        (["--num-machines", "2"], "--dist-url"),
        (["--num-gpus", "2", "--dist-url", "localhost:1"], "tcp://HOST:PORT"),
        (["--machine-rank", "1"], "--machine-rank 1 is not from 0 to 0"),
        (["--local-rank=0"], "use --num-gpus, or torchrun"),
        (["train.time_limit=0"], "time_limit must be above 0"),
        (["model.student.num_classes=2"], "num_classes=2"),
        (["lr_multiplier.milestones=[7]"], "step_schedule: milestones must be"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(config, capsys, arguments, words):
    with pytest.raises(SystemExit) as stop:
        program.main(["--config-file", config, *arguments])
    assert stop.value.code == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ") and words in error


@pytest.mark.slow
def test_a_killed_process_resumes(config, tmp_path, capsys):
    killed = command(config, "model.student.kill=8")
    assert killed.returncode == -9
    assert "Warning" not in killed.stderr, killed.stderr  # the libraries' own are filtered
    run = tmp_path / "run"
    assert (run / "last_checkpoint").read_text() == "model_0000005.pth"
    with pytest.raises(SystemExit):
        program.main(["--config-file", config])
    assert "--resume" in capsys.readouterr().err  # a run is not overwritten
    program.main(["--config-file", config, "--resume"])
    program.main(["--config-file", config, f"train.output_dir={tmp_path / 'whole.txt'}"])
    cut, whole = (torch.load(d / "model_final.pth") for d in (run, tmp_path / "whole.txt"))
    for part in ("model", "wrapper"):
        for name, value in whole[part].items():
            assert torch.equal(value, cut[part][name]), name


@pytest.mark.slow
def test_two_processes_stop_together_and_agree_with_eval_only(config, tmp_path, monkeypatch):
    """One of them is asked to stop; the run goes on in a single process."""
    two = ["--num-gpus", "2", "train.device=cpu", "train.eval_period=3"]
    stopped = command(config, *two, "model.student.stop=3")
    assert stopped.returncode == 128 + signal.SIGTERM, stopped.stderr[-2000:]
    assert "Traceback" not in stopped.stderr and stopped.stderr.count("--resume") == 1
    assert "on 2 x cpu" in stopped.stdout
    run, results = tmp_path / "run", []
    assert (run / "last_checkpoint").read_text() == "model_0000003.pth"
    best = json.loads((run / "best.json").read_text())
    test = program.Trainer.test
    weights = f"train.init_checkpoint={run / 'model_best.pth'}"
    with monkeypatch.context() as patch:
        patch.setattr(program.Trainer, "test", lambda *a: results.append(test(*a)) or results[-1])
        program.main(["--config-file", config, "--eval-only", weights])
    assert results[0]["bbox"]["AP"] == best["value"] > 0
    program.main(["--config-file", config, "--resume", "train.max_iter=5"])
    assert torch.load(run / "model_final.pth")["iteration"] == 4


def test_under_torchrun(monkeypatch):
    with pytest.raises(ConfigError, match="nproc-per-node"):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
        for name in ("RANK", "LOCAL_RANK"):
            monkeypatch.setenv(name, "0")
        monkeypatch.setenv("WORLD_SIZE", "4")
        launch(print, processes=2, device=torch.device("cpu"))
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setenv("LOCAL_RANK", "1")  # it is said once
        launch(print, processes=2, device=torch.device("cpu"))
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "0")
    seen = []
    launch(
        lambda: seen.append((dist.get_backend(), comm.get_local_rank(), comm.get_local_size())),
        device=torch.device("cpu"),
    )
    assert seen == [("gloo", 0, 1)] and not dist.is_initialized()


def test_backbone_weights_are_not_evaluated(config, capsys, monkeypatch):
    load = program.load_config

    def with_address(path, overrides=()):
        cfg = load(path, overrides)
        if not any("init_checkpoint" in text for text in overrides):
            cfg.train.init_checkpoint = "https://nowhere.invalid/resnet.pth"
        return cfg

    monkeypatch.setattr(program, "load_config", with_address)
    with pytest.raises(SystemExit):
        program.main(["--config-file", config, "--eval-only"])
    assert "--eval-only needs weights" in capsys.readouterr().err


@pytest.mark.parametrize("function", ["check", "train"])
def test_an_error_of_the_operating_system_is_one_sentence_and_exit_code_2(
    config, monkeypatch, capsys, function
):
    def full(*_):
        raise OSError("the disk is full")

    monkeypatch.setattr(program, function, full)
    with pytest.raises(SystemExit) as stop:
        program.main(["--config-file", config])
    assert stop.value.code == 2
    assert capsys.readouterr().err.strip().splitlines()[-1] == "error: the disk is full"


def test_a_users_mistake_has_no_traceback_in_the_log():
    def record(error):
        return logging.LogRecord("x", logging.ERROR, "", 0, "", None, (type(error), error, None))

    keep = program.without_user_errors
    assert not keep(record(DivergedError("loss is nan")))
    assert keep(record(IndexError("a bug")))
