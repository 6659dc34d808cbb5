"""Early stopping: where a run ends, that it is complete there, and that it resumes."""

import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from kddetr.engine import ConfigError, Trainer, train_defaults
from kddetr.engine.config.defaults import checked_values
from tests.distillation.runs import trained

VALUES = {2: 10.0, 4: 20.0, 6: 20.4, 8: 19.0, 10: 30.0, 12: 50.0}


@pytest.fixture
def judged(monkeypatch):
    """The numbers of iterations at which was evaluated; the results are those of VALUES."""
    seen = []

    def evaluate(trainer):
        seen.append(trainer.done)
        trainer._last_results = {"bbox": {"AP": VALUES[trainer.done], "error": -VALUES[seen[-1]]}}
        return trainer._last_results

    monkeypatch.setattr(Trainer, "evaluate", evaluate)
    monkeypatch.setattr(Trainer, "_has_own_results", lambda trainer: True)
    return seen


def config(toy, folder, dataset, **more):
    stop = {"patience": 2, "min_delta": 0.5}
    return toy.toy_config(
        folder, dataset, eval_period=2, log_period=2, **{"early_stopping": stop, **more}
    )


@pytest.mark.parametrize("mode", ["max", "min"])
def test_a_run_ends_complete_where_it_no_longer_improves(
    toy, tmp_path, dataset, judged, mode, caplog
):
    metric = "bbox/AP" if mode == "max" else "bbox/error"
    cfg = config(toy, tmp_path, dataset, best_metric=metric, best_mode=mode)
    caplog.set_level("INFO", logger="kddetr")
    trainer = trained(cfg)
    # 20.4 is not 0.5 above 20, and 19 is below: two evaluations without an improvement.
    assert judged == [2, 4, 6, 8]
    assert trainer.done == 8
    assert "Training ends after 8 of 12 iterations, because 2 evaluations in a row" in caplog.text
    folder = Path(cfg.train.output_dir)
    assert (folder / "last_checkpoint").read_text() == "model_final.pth"
    assert json.loads((folder / "best.json").read_text())["iteration"] == 6  # it is still better
    lines = [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]
    assert [line["bbox/AP"] for line in lines if "bbox/AP" in line] == [10, 20, 20.4, 19]
    # It does not go on when it is resumed, unless it shall wait longer.
    assert trained(cfg, resume=True).done == 8
    assert judged == [2, 4, 6, 8]
    cfg.train.early_stopping.patience = 3
    assert trained(cfg, resume=True).done == 12
    assert judged == [2, 4, 6, 8, 10, 12]


def test_a_resumed_run_stops_where_an_uninterrupted_one_does(toy, tmp_path, dataset, judged):
    cfg = config(toy, tmp_path, dataset, checkpointer={"period": 5})
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    step = trainer.run_step

    def killed():
        if trainer.iter == 7:  # the evaluation after 6 iterations is repeated from 5 on
            raise KeyboardInterrupt
        step()

    trainer.run_step = killed
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert trained(cfg, resume=True).done == 8
    assert judged == [2, 4, 6, 6, 8]


@pytest.mark.parametrize(
    "change", [{"best_metric": ""}, {"eval_period": 0}, {"early_stopping": {"patience": -1}}]
)
def test_patience_needs_something_to_wait_for(change):
    section = OmegaConf.merge(train_defaults(), {"early_stopping": {"patience": 1}}, change)
    with pytest.raises(ConfigError, match=r"train\.early_stopping\.patience"):
        checked_values(section)
