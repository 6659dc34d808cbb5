"""The Trainer: a resumed run equals an uninterrupted one; its files and its errors."""

import json
import logging
from pathlib import Path

import pytest
import torch
from detectron2.utils.events import EventStorage

from kddetr.checkpoint import read_checkpoint
from kddetr.engine import ConfigError, Trainer
from kddetr.engine.hooks import EvalHook
from kddetr.engine.step import StepTrainer


class Killed(BaseException):
    """Stands for a kill: it is not an Exception, so that no handler cleans up after it."""


def run(cfg, *, resume: bool = False, kill_after: int | None = None) -> Trainer:
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=resume)
    if kill_after is not None:
        step = trainer._trainer.run_step

        def run_step():
            if trainer.iter == kill_after:
                raise Killed
            step()

        trainer._trainer.run_step = run_step
    trainer.train()
    return trainer


def state(trainer: Trainer) -> dict[str, torch.Tensor]:
    model = trainer.model.state_dict()
    moments = trainer.optimizer.state_dict()["state"]
    return model | {
        f"{i}.{k}": torch.as_tensor(v) for i, s in moments.items() for k, v in s.items()
    }


@pytest.mark.parametrize("distil", [False, True])
def test_a_killed_and_resumed_run_equals_an_uninterrupted_one(
    toy, tmp_path, dataset, distil, caplog
):
    whole = run(toy.toy_config(tmp_path / "whole", dataset, distil=distil, eval_period=4))
    cut = toy.toy_config(tmp_path / "cut", dataset, distil=distil, eval_period=4)
    with pytest.raises(Killed):
        run(cut, kill_after=8)  # the last checkpoint is that of iteration 5
    with caplog.at_level(logging.INFO, logger="kddetr"):
        resumed = run(cut, resume=True)
    assert "at iteration 6 with optimizer, schedule, best bbox/AP" in caplog.text
    for name, value in state(whole).items():
        assert torch.equal(value, state(resumed)[name]), name
    assert resumed.optimizer.param_groups[0]["lr"] == whole.optimizer.param_groups[0]["lr"]
    best = [
        json.loads((tmp_path / which / "run/best.json").read_text()) for which in ("whole", "cut")
    ]
    assert best[0] == best[1] and best[0]["value"] > 0


def test_a_distiller_saves_the_plain_student(toy, tmp_path, dataset):
    run(toy.toy_config(tmp_path, dataset, distil=True, max_iter=2))
    saved = read_checkpoint(str(tmp_path / "run/model_final.pth"))
    toy.ToyDetector().load_state_dict(saved["model"])
    assert set(saved["wrapper"]) == {"projection.weight", "projection.bias"}
    best = read_checkpoint(str(tmp_path / "run/model_best.pth"))
    assert "trainer" not in best and best["metric"].keys() == {"bbox/AP"}
    assert (tmp_path / "run/last_checkpoint").read_text() == "model_final.pth"


def test_old_checkpoints_are_deleted_after_a_resume_too(toy, tmp_path, dataset):
    short = {"checkpointer": {"period": 1, "max_to_keep": 2}, "best_metric": ""}
    run(toy.toy_config(tmp_path, dataset, max_iter=3, **short))
    run(toy.toy_config(tmp_path, dataset, max_iter=5, **short), resume=True)
    kept = sorted(file.name for file in (tmp_path / "run").glob("model_*.pth"))
    assert kept == ["model_0000003.pth", "model_0000004.pth", "model_final.pth"]


def test_an_evaluation_interrupted_by_a_kill_is_repeated(toy, tmp_path, dataset, monkeypatch):
    cfg = toy.toy_config(tmp_path, dataset, max_iter=12, eval_period=6)

    def killed(*_, **__):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "test", killed)
        with pytest.raises(Killed):
            run(cfg)
    assert (tmp_path / "run/last_checkpoint").read_text() == "model_0000005.pth"
    evaluated = []
    original = Trainer.test
    monkeypatch.setattr(
        Trainer, "test", classmethod(lambda cls, *a: evaluated.append(1) or original(*a))
    )
    run(cfg, resume=True)
    assert len(evaluated) == 2  # the one at 6 and the one at the end


@pytest.mark.parametrize("kill_after", [None, 7])
def test_every_evaluation_is_written_however_rarely_the_log_is(toy, tmp_path, dataset, kill_after):
    """Writers know the latest results only; those of iterations 2 and 6 come between two lines."""
    cfg = toy.toy_config(tmp_path, dataset, max_iter=8, eval_period=2, log_period=4)
    if kill_after:
        with pytest.raises(Killed):
            run(cfg, kill_after=kill_after)
    else:
        run(cfg)
    lines = [json.loads(x) for x in (tmp_path / "run/metrics.json").read_text().splitlines()]
    found = {line["iteration"] for line in lines if "bbox/AP" in line}
    assert found == ({1, 3, 5} if kill_after else {1, 3, 5, 8})
    steps = [line["iteration"] for line in lines if "total_loss" in line]
    assert steps == ([3, 6] if kill_after else [3, 7])  # these lines are as ever


def test_resuming_without_a_checkpoint_or_its_name(toy, tmp_path, dataset, caplog):
    cfg = toy.toy_config(tmp_path, dataset, max_iter=1, best_metric="")
    with caplog.at_level(logging.WARNING, logger="kddetr"):
        run(cfg, resume=True)
    assert "found no checkpoint" in caplog.text
    (tmp_path / "run/last_checkpoint").write_text("")
    run(cfg, resume=True)
    assert "missing, empty or damaged, so the run resumes from" in caplog.text


def test_a_loss_that_is_nan(toy, tmp_path, dataset):
    cfg = toy.toy_config(tmp_path, dataset)
    cfg.model.poison = 4
    with pytest.raises(FloatingPointError) as error:
        run(cfg)
    message = str(error.value)
    for words in ("iteration 4", "loss_class is nan", "toy_0.png", "learning rates 0.01, 0.02"):
        assert words in message
    saved = read_checkpoint(str(tmp_path / "run/model_0000002.pth"))["model"]
    assert all(torch.isfinite(value).all() for value in saved.values())


def test_bfloat16_on_the_cpu_and_log_line(toy, tmp_path, dataset, caplog):
    cfg = toy.toy_config(tmp_path, dataset, distil=True, amp={"enabled": True}, max_iter=8)
    with caplog.at_level(logging.INFO, logger="kddetr"):
        trainer = run(cfg)
    assert all(p.dtype is torch.float32 for p in trainer.model.parameters())
    assert "ToyDistiller around ToyDetector" in caplog.text and "bfloat16" in caplog.text
    line = next(text for text in caplog.messages if text.startswith("iter: 8/8"))
    for word in (
        "total_loss",
        "detection",
        "kd_general",
        "eta",
        "time",
        "lr",
        "grad_norm",
        "max_mem",
    ):
        assert f"{word}: " in line
    lines = (tmp_path / "run/metrics.json").read_text().splitlines()
    last = json.loads(next(text for text in reversed(lines) if "total_loss" in text))
    groups = last["losses/detection"] + last["losses/kd_general"]
    assert groups == pytest.approx(last["total_loss"], rel=0.1)
    assert {"loss_class", "kd_general/class", "max_mem_mb"} <= set(last)
    assert list((tmp_path / "run").glob("events.out.tfevents*"))


def test_gradients_are_clipped_as_a_whole(toy, tmp_path, dataset):
    cfg = toy.toy_config(tmp_path, dataset, max_iter=1, clip_grad={"max_norm": 0.01})
    trainer = run(cfg)
    gradients = [p.grad for p in trainer.model.parameters()]
    assert torch.nn.utils.get_total_norm(gradients) == pytest.approx(0.01, rel=1e-3)


def test_a_wrong_class_count_stops_before_training(toy, tmp_path, dataset):
    cfg = toy.toy_config(tmp_path, dataset)
    cfg.model.num_classes = 2
    with pytest.raises(ConfigError, match="num_classes=2"):
        Trainer(cfg)
    assert not Path(cfg.train.output_dir).exists() or not list(Path(cfg.train.output_dir).iterdir())


def test_init_checkpoint_starts_at_zero(toy, tmp_path, dataset):
    first = run(toy.toy_config(tmp_path / "a", dataset, max_iter=2, best_metric=""))
    file = str(tmp_path / "a/run/model_final.pth")
    cfg = toy.toy_config(tmp_path / "b", dataset, init_checkpoint=file)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    assert trainer.start_iter == 0
    for name, value in first.model.state_dict().items():
        assert torch.equal(value, trainer.model.state_dict()[name])


def test_float16_scales_and_skips(toy):
    """The step alone: the checks before training refuse float16 on a CPU."""
    model = toy.ToyDetector()
    step = StepTrainer(
        model=model,
        data_loader=toy.ToyLoader(),
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        seed=0,
        amp_dtype=torch.float16,
        max_norm=0.1,
    )
    with EventStorage(0) as storage:
        before = model.head[1].weight.clone()
        for _ in range(5):  # the first ones overflow until the scale fits
            step.run_step()
        assert not torch.equal(before, model.head[1].weight)
        norm = storage.history("grad_norm").latest()
        assert 0 < norm < 10  # of the gradient itself, not of the scaled one
        before, scale = model.head[1].weight.clone(), step.grad_scaler.get_scale()
        hook = model.head[1].weight.register_hook(lambda grad: grad * float("inf"))
        step.run_step()
        assert torch.equal(before, model.head[1].weight)
        assert step.grad_scaler.get_scale() < scale
        hook.remove()
        state = step.state_dict()
        step.grad_scaler.update(1.0)
        step.load_state_dict(state)
        assert step.grad_scaler.get_scale() == state["grad_scaler"]["scale"] < scale


def test_a_subclass_with_results_and_hooks_of_its_own(toy, tmp_path, dataset):
    class Own(Trainer):
        def build_hooks(self):
            return [hook for hook in super().build_hooks() if isinstance(hook, EvalHook)]

        @classmethod
        def test(cls, cfg, model, evaluators=None):
            return {"own": {"score": 7.0}}

    cfg = toy.toy_config(tmp_path, dataset, max_iter=2, best_metric="own/score")
    trainer = Own(cfg)
    trainer.resume_or_load(resume=False)  # no writer has made the folder
    assert trainer.train() == {"own": {"score": 7.0}}
    assert json.loads((tmp_path / "run/best.json").read_text())["value"] == 7.0
