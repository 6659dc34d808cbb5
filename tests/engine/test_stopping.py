"""A run that is asked to stop saves, ends with a sentence, and goes on as if nothing had been."""

import multiprocessing
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch

from kddetr.data.loader import build_train_loader
from kddetr.engine import Trainer, stopping
from kddetr.engine.stopping import Stopped, exit_when_stopped
from tests.engine.test_trainer import run, state


@pytest.fixture(autouse=True)
def listening():
    with stopping.listening():
        yield


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_stopped_and_resumed_run_equals_an_uninterrupted_one(
    toy, tmp_path, dataset, number, capfd
):
    whole = run(toy.toy_config(tmp_path / "whole", dataset, distil=True))
    cfg = toy.toy_config(tmp_path / "cut", dataset, distil=True)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    step = trainer._trainer.run_step
    trainer._trainer.run_step = lambda: (trainer.iter == 7 and send(number), step())
    with pytest.raises(SystemExit) as end, exit_when_stopped():
        trainer.train()
    assert end.value.code == 128 + number
    said = capfd.readouterr().err
    assert f"{signal.Signals(number).name}" in said and "saves and stops after this it" in said
    file = tmp_path / "cut/run/model_0000007.pth"
    assert f"after 8 of 12 iterations; --resume goes on from {file}." in said
    stopping._request.number = 0  # another process
    resumed = run(cfg, resume=True)
    assert resumed.start_iter == 8
    for name, value in state(whole).items():
        assert torch.equal(value, state(resumed)[name]), name


def test_an_evaluation_is_ended_at_once_and_repeated(toy, tmp_path, dataset, monkeypatch):
    cfg = toy.toy_config(tmp_path, dataset, max_iter=6, eval_period=4)
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "test", lambda *_: send(signal.SIGTERM) or pytest.fail("goes on"))
        with pytest.raises(Stopped, match=r"after 4 of 6 iterations; .*model_0000003\.pth"):
            run(cfg)
    stopping._request.number = 0  # another process
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=True)
    evaluate, evaluated = trainer.evaluate, []
    for hook in trainer._hooks:
        if hasattr(hook, "_evaluate"):
            hook._evaluate = lambda: evaluated.append(trainer.done) or evaluate()
    trainer.train()
    assert evaluated == [4, 6]


def test_a_signal_that_meets_a_destructor_prints_no_traceback(capsys):
    class Held:
        def __del__(self):
            send(signal.SIGTERM)

    with stopping.listening():
        Held()  # Python cannot raise there
        assert stopping.requested() == signal.SIGTERM
    assert capsys.readouterr().err == ""

    class Ended:
        def __del__(self):
            raise RuntimeError("a loading process is killed")

    def stops():
        held = Ended()
        send(signal.SIGTERM)
        return held

    with pytest.raises(SystemExit), stopping.listening(), exit_when_stopped():
        stops()
    assert "killed" not in capsys.readouterr().err


def test_a_run_whose_output_nobody_reads_saves_and_stops(toy, tmp_path, dataset, monkeypatch):
    def test(*_):
        raise BrokenPipeError

    monkeypatch.setattr(Trainer, "test", test)
    cfg = toy.toy_config(tmp_path, dataset, max_iter=6, eval_period=4)
    with pytest.raises(Stopped, match=r"SIGPIPE after 4 of 6 .*model_0000003\.pth") as stopped:
        run(cfg)
    assert stopped.value.exit_code == 141


def test_the_second_ctrl_c_does_not_wait(toy, tmp_path, dataset, monkeypatch):
    monkeypatch.setattr(stopping, "_ONCE", 0.0)
    trainer = Trainer(toy.toy_config(tmp_path, dataset))
    trainer.resume_or_load(resume=False)
    step = trainer._trainer.run_step

    def run_step():
        step()
        if trainer.iter == 4:
            send(signal.SIGINT)
            send(signal.SIGINT)

    trainer._trainer.run_step = run_step
    with pytest.raises(Stopped, match=r"without saving; .*model_0000002\.pth") as stopped:
        trainer.train()
    assert stopped.value.exit_code == 130
    assert not (tmp_path / "run/model_0000004.pth").exists()


def test_the_time_limit_saves_and_is_no_error(toy, tmp_path, dataset, capsys, monkeypatch):
    cfg = toy.toy_config(tmp_path, dataset, max_iter=10**6, checkpointer={"period": 10**6})
    monkeypatch.setattr(stopping, "_STARTED", time.monotonic() - 99.7)
    stopping.limit_time(100.0)
    with pytest.raises(SystemExit) as end, exit_when_stopped():
        run(cfg)
    assert end.value.code == 0
    assert "stopped by train.time_limit" in capsys.readouterr().err
    assert list(Path(cfg.train.output_dir).glob("model_*.pth"))


def test_before_training_a_signal_ends_the_program_at_once(capsys):
    with pytest.raises(SystemExit) as end, exit_when_stopped():
        send(signal.SIGTERM)
        pytest.fail("goes on")
    assert end.value.code == 143
    assert "nothing is lost" in capsys.readouterr().err


def test_a_signal_for_the_whole_job_leaves_the_loading_processes_alone(toy, dataset):
    records = [{"file_name": "", "n": n} for n in range(8)]
    loader = build_train_loader(
        dataset=records, mapper=_Slow(), total_batch_size=1, num_workers=1, seed=0
    )
    batches = iter(loader)
    pid = next(batches)[0]["pid"]
    assert pid != os.getpid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        subprocess.run(["kill", f"-{int(number)}", str(pid)], check=True)  # from another process
    assert {next(batches)[0]["pid"] for _ in range(5)} == {pid}
    os.kill(pid, signal.SIGTERM)  # its own process may end it, as Python does at its exit
    (worker,) = [child for child in multiprocessing.active_children() if child.pid == pid]
    worker.join(10)
    assert worker.exitcode == 0


class _Slow:
    """A mapper that says which process it runs in."""

    def __call__(self, record: dict) -> dict:
        time.sleep(0.01)
        return record | {"pid": os.getpid()}
