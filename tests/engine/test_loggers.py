"""Loggers of accelerate: what they get, that a resumed run continues, and that none stops a run."""

import json
import logging
import sys

import pytest

from kddetr.engine import ConfigError
from kddetr.engine.loggers import check_loggers
from tests.distillation.runs import interrupt, trained

tracking = pytest.importorskip("accelerate.tracking")


class Tracker:
    """Stands in for that of W&B."""

    requires_logging_directory = False
    made: list["Tracker"] = []  # noqa: RUF012  (emptied by the fixture)
    broken = False
    fails = True  # at the second line

    def __init__(self, project, **options):
        self.init_kwargs = options
        self.lines, self.settings, self.ended = {}, None, False
        self.made.append(self)

    def start(self):
        if self.broken:
            raise RuntimeError("no api key")

    def store_init_configuration(self, values):
        self.settings = values

    def log(self, values, step):
        if self.lines and self.fails:
            raise ConnectionError("the network is gone")
        self.lines[step] = values

    def finish(self):
        self.ended = True


@pytest.fixture
def trackers(monkeypatch):
    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "wandb", Tracker)
    monkeypatch.setattr(tracking, "get_available_trackers", lambda: ["wandb"])
    Tracker.made.clear()
    return Tracker.made


def test_a_logger_gets_metrics_and_settings_and_does_not_stop_the_run(
    toy, tmp_path, dataset, trackers, caplog
):
    cfg = toy.toy_config(tmp_path, dataset, max_iter=4, log_period=2, loggers=["wandb"])
    caplog.set_level(logging.WARNING, logger="kddetr")
    trained(cfg)
    (first,) = trackers
    assert first.ended and first.settings["train.max_iter"] == 4
    assert {"total_loss", "loss_class", "lr"} <= first.lines[1].keys()
    assert "wandb failed (the network is gone)" in caplog.text
    cfg.train.max_iter = 6
    trained(cfg, resume=True)
    second = trackers[1]
    assert second.init_kwargs["id"] == first.init_kwargs["id"]
    assert second.settings is None  # they are there already
    assert min(second.lines) > max(first.lines)
    lines = (tmp_path / "run/metrics.json").read_text().splitlines()
    assert json.loads(lines[-1])["iteration"] == 6


def test_every_evaluation_is_sent(toy, tmp_path, dataset, trackers, monkeypatch):
    """Also where they are closer together than the lines of the log, and where a killed run has
    missed one.
    """
    monkeypatch.setattr(Tracker, "fails", False)
    more = {"log_period": 100, "eval_period": 1, "checkpointer": {"period": 2}}
    cfg = toy.toy_config(tmp_path, dataset, max_iter=4, loggers=["wandb"], **more)
    interrupt(cfg, at=2)
    record = tmp_path / "run/best.json"
    record.write_text(record.read_text().replace('"evaluated": 2', '"evaluated": 1'))
    trained(cfg, resume=True)
    first, second = ([i for i, x in t.lines.items() if "bbox/AP" in x] for t in trackers)
    assert (first, second) == ([0, 1], [1, 2, 4])


def test_a_logger_that_cannot_start_is_one_sentence(toy, tmp_path, dataset, trackers, monkeypatch):
    monkeypatch.setattr(Tracker, "broken", True)
    cfg = toy.toy_config(tmp_path, dataset, max_iter=2, loggers=["wandb"])
    with pytest.raises(ConfigError, match=r"wandb cannot start \(no api key\)"):
        trained(cfg)


def test_what_is_not_there_is_said_at_the_start(trackers, monkeypatch):
    check_loggers([])
    check_loggers(["wandb"])
    with pytest.raises(ConfigError, match="no known logger; did you mean wandb"):
        check_loggers(["wnadb"])
    with pytest.raises(ConfigError, match="mlflow, which is not installed: pip install mlflow"):
        check_loggers(["mlflow"])
    monkeypatch.setitem(sys.modules, "accelerate.tracking", None)
    with pytest.raises(ConfigError, match="needs accelerate, which is not installed"):
        check_loggers(["wandb"])
    check_loggers([])
