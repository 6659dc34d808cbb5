"""The program that runs several trainings: progress, resume, failure."""

import json
import subprocess
import sys

import pytest
from quickstart import table
from training_runs import Run, RunFailed, run_all


class FakeRun(Run):
    """Writes what a training writes, or fails."""

    fails = False

    def settings(self):
        return f"{self.iterations}"

    def start(self):
        self.output.mkdir(parents=True, exist_ok=True)
        if not self.fails:
            lines = [
                {"iteration": 0, "train_seconds": 1.0},
                {"iteration": 1, "bbox/AP": 3.0, "train_seconds": 2.0},
                {"iteration": 1, "total_loss": 1.0},
                {"iteration": 2, "train_seconds": 3.5},
                {"iteration": 3, "bbox/AP": 5.0},
            ]
            text = "\n".join(map(json.dumps, lines)) + '\n{"iteration": 3, "cut'
            (self.output / "metrics.json").write_text(text)
            self.checkpoint.write_bytes(b"weights")
        return subprocess.Popen([sys.executable, "-c", f"raise SystemExit({int(self.fails)})"])


def fake(tmp_path, name, **options):
    return FakeRun(name, "configs/x.py", tmp_path / name, iterations=3, **options)


def test_runs_are_watched_and_not_repeated(tmp_path):
    runs = [fake(tmp_path, name) for name in "abc"]
    said = []
    run_all(runs, say=said.append)
    assert all(run.finished for run in runs)
    assert runs[0].evaluations() == [(2, (2.0, 3.0)), (3, (3.5, 5.0))]
    assert sorted(said) == [f"{n} 3/3, AP 5.0 - done" for n in "abc"]
    said.clear()
    run_all(runs, say=said.append)
    assert all("found finished" in line for line in said)


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


def test_a_run_of_other_settings_is_not_taken_for_this_one(tmp_path):
    run_all([fake(tmp_path, "a")], say=lambda text: None)
    other = fake(tmp_path, "a")
    other.iterations = 2
    with pytest.raises(RunFailed, match="other settings"):
        run_all([other], say=lambda text: None)


def test_settings_are_those_of_the_config_and_the_weights(tmp_path):
    def settings(config, iterations=5, overrides=()):
        return Run(
            "a", f"configs/quickstart/{config}.py", tmp_path, iterations, [*overrides]
        ).settings()

    assert settings("alone") == settings("alone")
    others = [settings("distilled"), settings("alone", 6), settings("alone", 5, ["train.seed=1"])]
    assert len({settings("alone"), *others}) == 4


def test_two_programs_do_not_train_in_one_folder(tmp_path, monkeypatch):
    """A training that outlived its killed parent keeps its folder to itself."""
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
