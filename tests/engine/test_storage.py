"""A full disk, damaged records and a folder that two runs want."""

import errno
import json
from pathlib import Path

import pytest
import torch
from detectron2.utils.events import EventStorage, JSONWriter

from kddetr.checkpoint import Checkpointer, atomic_write
from kddetr.engine import BestCheckpoint, ConfigError, Trainer
from kddetr.engine.run_folder import only_run_in
from kddetr.engine.writers import FileWriter
from kddetr.errors import StorageError
from tests.engine.test_trainer import run

FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def full_disk(monkeypatch):
    """A function that fills the disk for the files whose names have a part in common."""
    save = torch.save

    def fill(*parts: str) -> None:
        def saved(data, stream):
            stream.write(b"beginning")
            if any(part in stream.name for part in parts):
                raise FULL
            stream.seek(0)
            save(data, stream)

        monkeypatch.setattr(torch, "save", saved)

    return fill


def test_a_full_disk_is_named_and_the_old_file_survives(tmp_path):
    file = tmp_path / "file"
    atomic_write(str(file), lambda stream: stream.write(b"old"))

    def write(stream):
        stream.write(b"new")
        try:
            raise FULL
        except OSError:  # as PyTorch does
            raise RuntimeError("unexpected pos 704 vs 598")  # noqa: B904

    with pytest.raises(StorageError, match=r"No space left on device; \d+ MiB are free in"):
        atomic_write(str(file), write)
    assert file.read_bytes() == b"old" and list(tmp_path.iterdir()) == [file]
    with pytest.raises(RuntimeError, match="a bug") as error:
        atomic_write(str(file), lambda _: (_ for _ in ()).throw(RuntimeError("a bug")))
    assert not isinstance(error.value, StorageError)
    with pytest.raises(StorageError, match="No such file or directory"):
        atomic_write(str(tmp_path / "none" / "file"), write)


def test_a_run_goes_on_without_a_periodic_checkpoint(toy, tmp_path, dataset, full_disk, caplog):
    cfg = toy.toy_config(tmp_path, dataset, max_iter=9, eval_period=6)
    full_disk("model_0000005", "model_best")
    run(cfg)
    folder = tmp_path / "run"
    assert "goes on without a checkpoint at 6 iterations" in caplog.text
    assert "without the best weights" in caplog.text
    saved = {file.name for file in folder.glob("model_*")}
    assert saved == {"model_0000002.pth", "model_0000008.pth", "model_final.pth"}
    assert json.loads((folder / "best.json").read_text())["value"] is None
    assert not list(folder.glob("*.tmp-*"))


def test_a_final_checkpoint_that_cannot_be_saved_is_an_error_after_the_evaluation(
    toy, tmp_path, dataset, full_disk, monkeypatch
):
    cfg = toy.toy_config(tmp_path, dataset, max_iter=2)
    full_disk("model_final")
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    with pytest.raises(StorageError, match="model_final"):
        trainer.train()
    assert json.loads((tmp_path / "run/best.json").read_text())["evaluated"] == 2


def test_metrics_that_cannot_be_written_do_not_end_a_run(tmp_path, caplog):
    made = []

    class Full(JSONWriter):
        def write(self):
            if len(made) < 2:
                made.append(1)
                raise FULL
            super().write()

    writer = FileWriter(lambda: Full(str(tmp_path / "metrics.json")), "metrics.json")
    with EventStorage(0) as storage:
        storage.put_scalar("loss", 1.0)
        for _ in range(3):
            writer.write()
        writer.close()
    assert caplog.text.count("metrics.json cannot be written") == 1
    assert "loss" in (tmp_path / "metrics.json").read_text()


NAN = '{"metric": "bbox/AP", "value": NaN, "iteration": 4, "evaluated": 4}'


@pytest.mark.parametrize(
    "record", ["", "{", "[]", '{"metric": "bbox/AP", "value": "x"}', "\x00", NAN]
)
@pytest.mark.parametrize("weights", [True, False])
def test_a_damaged_record_of_the_best_weights_is_taken_from_the_weights(
    toy, tmp_path, dataset, record, weights, caplog
):
    cfg = toy.toy_config(tmp_path, dataset)
    folder = Path(cfg.train.output_dir)
    trainer = Trainer(cfg)
    trainer.checkpointer.save_weights("model_best", iteration=4, metric={"bbox/AP": 50.0})
    if not weights:
        (folder / "model_best.pth").write_bytes(b"")
    (folder / "best.json").write_text(record)
    trainer.best.restore()
    assert "best.json is damaged" in caplog.text
    assert trainer.best.evaluated is None
    wanted = (50.0, 5) if weights else (None, None)
    assert (trainer.best.value, trainer.best.iteration) == wanted


@pytest.mark.parametrize("batch", [{"batch": 4}, {}])
def test_the_record_of_the_best_weights_is_counted_in_todays_batch(tmp_path, batch):
    record = {"metric": "bbox/AP", "value": 3.0, "iteration": 4, "evaluated": 8, **batch}
    (tmp_path / "best.json").write_text(json.dumps(record))
    (tmp_path / "model_best.pth").touch()
    best = BestCheckpoint(Checkpointer(torch.nn.Linear(1, 1), str(tmp_path)), "bbox/AP", 8)
    best.restore(4)
    assert (best.value, best.iteration, best.evaluated) == (3.0, 2, 4)
    best.update({"bbox/AP": 1.0}, 6)
    best.restore(4)  # what it has written says its batch
    assert (best.iteration, best.evaluated) == (2, 6)


def test_two_runs_in_one_folder(tmp_path, caplog):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "model_0000001.pth.tmp-99").touch()
    with only_run_in(str(folder)):
        assert not list(folder.glob("*.tmp-*"))
        second = only_run_in(str(folder), patience=0)
        with pytest.raises(ConfigError, match="Another run is training in"), second:
            pytest.fail("two runs")
    with only_run_in(str(folder), patience=0):
        assert folder.is_dir()


def test_without_the_best_weights_those_of_later_evaluations_are_the_best(tmp_path, caplog):
    record = {"metric": "bbox/AP", "value": 3.0, "iteration": 4, "evaluated": 8}
    (tmp_path / "best.json").write_text(json.dumps(record))
    best = BestCheckpoint(Checkpointer(torch.nn.Linear(1, 1), str(tmp_path)), "bbox/AP")
    best.restore()
    assert (best.value, best.evaluated) == (None, 8)
    assert "model_best.pth is missing" in caplog.text
