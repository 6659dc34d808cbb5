"""Several trainings side by side: progress, resuming, failures. The table of the quickstart."""

import json
import subprocess
import sys

import pytest
import torch

import comparison
import dino
import heterogeneous
from kddetr.engine import load_config
from quickstart import CONFIGS, table
from runs import FIRST_KEYS, ROOT, Run, RunFailed, run_all


class FakeRun(Run):
    """A run whose training only writes the files of a training, or fails."""

    fails = False

    def settings(self):
        return f"{self.iterations}"

    def start(self):
        self.output.mkdir(parents=True, exist_ok=True)
        if not self.fails:
            written = [
                {"iteration": 0, "train_seconds": 1.0},
                {"iteration": 1, "bbox/AP": 3.0, "train_seconds": 2.0},
                {"iteration": 1, "total_loss": 1.0},
                {"iteration": 2, "train_seconds": 3.5},
                {"iteration": 3, "bbox/AP": 5.0},
            ]
            text = "\n".join(map(json.dumps, written)) + '\n{"iteration": 3, "cut'
            (self.output / "metrics.json").write_text(text)
            self.checkpoint.write_bytes(b"weights")
        return subprocess.Popen([sys.executable, "-c", f"raise SystemExit({int(self.fails)})"])


def fake(tmp_path, name, **options):
    return FakeRun(name, "configs/x.py", tmp_path / name, iterations=3, **options)


def test_finished_runs_are_not_repeated(tmp_path):
    runs = [fake(tmp_path, name) for name in "abc"]
    lines = []
    run_all(runs, say=lines.append)
    assert all(run.finished for run in runs)
    assert runs[0].evaluations() == [(2, (2.0, 3.0)), (3, (3.5, 5.0))]
    assert sorted(lines) == [f"{n} 3/3, AP 5.0 - done" for n in "abc"]
    lines.clear()
    run_all(runs, say=lines.append)
    assert all("found finished" in line for line in lines)


def test_a_failure_names_the_log(tmp_path):
    run = fake(tmp_path, "a")
    run.fails = True
    with pytest.raises(RunFailed, match=r"console\.txt"):
        run_all([run], say=lambda text: None)


def test_table():
    def result(alone, distilled):
        return {
            "teacher": 60.0,
            "alone": alone,
            "distilled": distilled,
            "iterations": {"alone": 10, "distilled": 10},
            "seconds": {"alone": 5, "distilled": 8},
        }

    one = table([result(10.0, 20.0)])
    assert "| distilled | 20.0 | +10.0 | 10 | 8 |" in one
    three = table([result(10.0, 20.0), result(12.0, 23.0), result(11.0, 20.0)])
    assert "| student alone | 11.0 ± 1.0 |" in three
    assert "+10.0 ± 1.0" in three


def test_folder_with_other_settings_is_refused(tmp_path):
    run_all([fake(tmp_path, "a")], say=lambda text: None)
    other = fake(tmp_path, "a")
    other.iterations = 2
    with pytest.raises(RunFailed, match="with other settings"):
        run_all([other], say=lambda text: None)


def test_settings_depend_on_config_iterations_and_overrides(tmp_path):
    def settings(config, iterations=5, overrides=()):
        return Run(
            "a", f"configs/quickstart/{config}.py", tmp_path, iterations, [*overrides]
        ).settings()

    assert settings("alone") == settings("alone")
    others = [settings("distilled"), settings("alone", 6), settings("alone", 5, ["train.seed=1"])]
    assert len({settings("alone"), *others}) == 4


def test_settings_depend_on_the_weights_of_a_teacher_and_not_on_where_it_lies(
    tmp_path, monkeypatch
):
    # A stand-in for the project's folder, to which names of files are relative.
    monkeypatch.setattr("runs.ROOT", tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    weights, key = tmp_path / "other" / "teacher.pth", "model.teacher.detector.checkpoint"

    def run(path):
        return Run("a", "configs/quickstart/distilled.py", tmp_path, 5, [f"{key}={path}"])

    missing = run(weights).settings()
    weights.parent.mkdir()
    weights.write_bytes(b"first")
    found = run(weights).settings()
    assert found == run("other/teacher.pth").settings() != missing
    weights.write_bytes(b"second")
    assert run(weights).settings() != found
    # The recipe is that of every machine.
    assert run(weights).recipe() == missing


def test_a_later_key_of_the_train_section_counts_where_it_is_set(monkeypatch):
    """The fingerprints of runs that were trained before there was the key stay as they are."""
    config = "configs/quickstart/alone.py"
    plain = Run("a", config, ROOT, 5).recipe()
    assert Run("a", config, ROOT, 5, ["train.ema.decay=0.9"]).recipe() != plain
    before = Run._config

    def without_later_keys(run):
        cfg = before(run)
        for key in {*cfg.train} - FIRST_KEYS - {"watch_period", "watch_images"}:
            del cfg.train[key]
        return cfg

    monkeypatch.setattr(Run, "_config", without_later_keys)
    assert Run("a", config, ROOT, 5).recipe() == plain


def test_the_report_of_a_run_is_no_part_of_its_recipe():
    config = "configs/quickstart/alone.py"
    changes = ["train.report=false", "train.report_images=0"]
    assert Run("a", config, ROOT, 5, changes).recipe() == Run("a", config, ROOT, 5).recipe()


def test_a_student_is_evaluated_on_the_device_of_its_training(monkeypatch):
    moved = []

    class Detector(torch.nn.Linear):
        def to(self, device):
            moved.append(str(device))
            return self

    def judge(cfg, detector):
        assert moved == ["cuda:1"] and not detector.training
        return {"bbox": {"AP": 1.0}}

    monkeypatch.setattr(comparison, "resolve_device", lambda name: torch.device("cuda:1"))
    monkeypatch.setattr(comparison.Trainer, "test", judge)
    assert comparison.scores(Detector(1, 1), ["AP"]) == {"AP": 1.0}
    assert moved[1:] == ["cpu"]


def test_two_processes_do_not_train_in_one_folder(tmp_path, monkeypatch):
    """A training whose parent was killed still locks its folder."""
    run = fake(tmp_path, "a")
    first = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda command, **kw: first(["sleep", "30"], **kw))
    training = Run.start(run)
    try:
        with pytest.raises(RunFailed, match="still training"):
            Run.start(run)
    finally:
        training.kill()
        training.wait()


DINO = [f"{dino.CONFIGS}/{config}.py" for _, config, _ in dino.STUDENTS.values()]


@pytest.mark.parametrize(
    "configs, changes",
    [
        (CONFIGS.values(), []),
        (heterogeneous.CONFIGS.values(), []),
        (DINO, ["train.max_iter=9"]),  # set by the program, which takes a config of the quickstart
    ],
)
def test_runs_that_are_compared_have_one_schedule(configs, changes):
    def schedule(config):
        cfg = load_config(str(ROOT / config), changes)
        return cfg.train.max_iter, cfg.dataloader.train.total_batch_size, cfg.lr_multiplier

    first, *others = map(schedule, configs)
    assert all(other == first for other in others)
