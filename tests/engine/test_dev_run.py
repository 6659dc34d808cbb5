"""--fast-dev-run: everything of a run is done twice, in a folder of its own."""

from functools import partial
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from kddetr.engine import Trainer, dev_run, load_config, program, run_folder
from kddetr.engine.dev_run import shortened

ROOT = Path(__file__).parents[2]


@pytest.fixture
def train_net(monkeypatch):
    """The program, as a function of its command line."""
    monkeypatch.setattr(program, "collect_env_info", str)  # takes longer than the training
    return lambda *words: program.main(["--config-file", *words])


def test_all_parts_of_a_run_are_tried_and_nothing_is_overwritten(
    toy, tmp_path, train_net, monkeypatch
):
    config, run, own = toy.write_config(tmp_path), tmp_path / "run", tmp_path / "run_fast_dev_run"
    run.mkdir()
    (run / "model_final.pth").write_bytes(b"of a real run")
    before = {file: file.read_bytes() for file in run.iterdir()}
    seen, evaluate = [], Trainer.evaluate

    def noted(trainer):
        seen.append((trainer.done, sorted(f.name for f in own.glob("model_*.pth"))))
        return evaluate(trainer)

    monkeypatch.setattr(Trainer, "evaluate", noted)
    read = []
    monkeypatch.setattr(toy.ToyTestLoader, "__iter__", _counted(toy.ToyTestLoader.__iter__, read))
    words = ["train.ema.decay=0.9", "train.checkpointer.period=100"]
    train_net(config, "--fast-dev-run", *words)
    assert [done for done, _ in seen] == [1, 2]
    assert seen[0][1] == ["model_0000000.pth", "model_ema.pth"]
    assert "model_0000001.pth" in seen[1][1] and "model_best.pth" in seen[1][1]
    assert len(read) == 8  # 2 of 6, in 2 evaluations, of the weights and their average
    assert {file: file.read_bytes() for file in run.iterdir()} == before
    assert not own.exists()


def _counted(iterate, read):
    def counted(loader):
        for batch in iterate(loader):
            read.append(batch)
            yield batch

    return counted


def test_after_an_error_the_folder_stays_until_the_next_try(toy, tmp_path, train_net, capsys):
    config, own = toy.write_config(tmp_path), tmp_path / "run_fast_dev_run"
    with pytest.raises(SystemExit) as stop:
        train_net(config, "--fast-dev-run", "model.poison=1")
    assert stop.value.code == 2
    assert "loss_class is nan" in capsys.readouterr().err
    assert (own / "log.txt").is_file()
    train_net(config, "--fast-dev-run")
    assert not own.exists()
    with pytest.raises(SystemExit):
        train_net(config, "--fast-dev-run", "--resume")
    assert "leave out one of the two flags" in capsys.readouterr().err


def test_a_second_try_at_the_same_time_is_refused(toy, tmp_path, train_net, capsys, monkeypatch):
    """It does not remove the folder of the first one."""
    config, own = toy.write_config(tmp_path), tmp_path / "run_fast_dev_run"
    with run_folder.only_run_in(str(own)):
        (own / "log.txt").write_text("of the first")
        monkeypatch.setattr(dev_run, "only_run_in", partial(run_folder.only_run_in, patience=0))
        with pytest.raises(SystemExit):
            train_net(config, "--fast-dev-run")
        assert (own / "log.txt").read_text() == "of the first"
    assert "Another run is training in" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["configs/detectors/faster_rcnn_r50.py"])
def test_a_shortened_config_is_still_one(name):
    """Its warm-up fits, and it does everything of a run once and again."""
    cfg = load_config(str(ROOT / name))
    before = OmegaConf.to_yaml(cfg)
    short = shortened(cfg)
    assert OmegaConf.to_yaml(cfg) == before
    train = short.train
    assert (train.max_iter, train.eval_batches, short.lr_multiplier.warmup_iters) == (2, 2, 1)
    assert train.eval_period == train.checkpointer.period == train.log_period == 1
    assert train.output_dir == f"{cfg.train.output_dir}_fast_dev_run"
