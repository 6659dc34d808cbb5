"""What evidence.py trains and in which order, and what it notes about its runs."""

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from experiments import pages, session, started
from experiments.jobs import job_of_line
from experiments.lines import TRIAL_SEED, Line
from experiments.results import Results
from experiments.scales import CPU
from experiments.session import Session
from kddetr.errors import UsageError
from runs import Run, run_all
from tests.tools.toy_experiment import ALONE, TOY, TUNED, result


class FakeRun(Run):
    """A run whose training only leaves its final files, or fails."""

    fails = ""

    def recipe(self):
        text = f"{self.config} {self.iterations} {self.overrides}"
        return hashlib.sha256(text.encode()).hexdigest()

    def weights(self):
        return ""

    def start(self):
        self.output.mkdir(parents=True, exist_ok=True)
        self._claim_folder()
        lines = {"iteration": self.iterations - 1, "bbox/AP": 5.0, "train_seconds": 2.0}
        (self.output / "metrics.json").write_text(json.dumps(lines))
        self.checkpoint.write_bytes(b"weights")
        code = int(bool(self.fails) and self.fails in self.name)
        return subprocess.Popen([sys.executable, "-S", "-c", f"raise SystemExit({code})"])


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A session of the toy experiment whose trainings are made up; costs are those of a file."""
    monkeypatch.setattr(session, "Run", FakeRun)
    monkeypatch.setattr("runs.time.sleep", lambda seconds: None)
    monkeypatch.setattr(session, "result_of", lambda job, _, start, __: result(job, 7.0, **start))
    monkeypatch.setattr(started, "Run", FakeRun)
    monkeypatch.setattr(started, "environment", lambda device: {"commit": "abc"})
    steps = tmp_path / "steps.json"
    steps.write_text(json.dumps({"toy": {"alone": 0.1, "other": 0.2, "tuned": 0.2}}))
    scale = replace(CPU, output=tmp_path)
    return Session([TOY], scale, Results(tmp_path / "x.jsonl"), steps, lambda text: None)


def train(one: Session, processes: int = 2) -> None:
    run_all(one.runs(), processes=processes, say=one.say, finished=one.finished, failed=one.give_up)


def test_a_line_may_take_the_value_that_was_chosen_for_another(toy):
    like = replace(TUNED, name="like", config="configs/c.py", tuned_like="tuned")
    toy.experiments = [replace(TOY, lines=(like, TUNED))]
    train(toy)
    assert not toy.failed and not list(toy.missing())
    found = toy.results.all()
    # Three trials of the one line serve both.
    assert [r["config"] for r in found if r["seed"] == TRIAL_SEED] == [TUNED.config] * 3
    for seed in (0, 1):
        jobs = [job_of_line(toy.experiments[0], x, seed, CPU, toy.results) for x in (like, TUNED)]
        assert jobs[0].overrides == jobs[1].overrides and jobs[0].config == like.config


def test_all_lines_are_trained_once_and_seed_after_seed(toy):
    train(toy, processes=1)  # of two at the same time, either may end first
    assert not toy.failed and not list(toy.missing())
    found = Results(toy.results.file).all()
    # Four lines with two seeds, and three trials.
    assert len(found) == 4 * 2 + 3
    order = [line["seed"] for line in found if line["seed"] != TRIAL_SEED]
    assert order == [0, 0, 0, 0, 1, 1, 1, 1]
    assert {line["iterations"] for line in found} == {50, 100, 200}
    written = toy.results.file.read_text()
    train(toy)
    assert toy.results.file.read_text() == written


def test_a_failed_run_is_named_and_the_others_go_on(toy, monkeypatch):
    monkeypatch.setattr(FakeRun, "fails", "w=3")
    train(toy)
    assert list(toy.failed) == ["toy/tuned w=3 seed 100"]
    # The tuned line cannot be trained without that trial; all others are.
    assert len(toy.results.all()) == 3 * 2 + 2


def test_what_cannot_be_prepared_is_named_and_the_others_go_on(toy, monkeypatch):
    def fails(line: Line, *_) -> None:
        if line.name == "alone":
            raise UsageError("no record")

    monkeypatch.setattr(session, "prepare", fails)
    train(toy)
    assert toy.failed == {f"toy/alone seed {seed}": "no record" for seed in (0, 1)}
    assert len(list(toy.missing())) == 2


def test_the_time_that_is_left_counts_what_waits_for_trials(toy):
    # Two trainings alone; two of another line, of the tuned one and of equal time; three trials. A
    # step takes what the file says, and not what the run of a busy machine took.
    toy.results.add(result(replace(job_of_line(TOY, ALONE, 0, CPU, toy.results), seed=9), 1.0))
    seconds = 2 * 100 * 0.1 + (6 * 100 + 3 * 50) * 0.2 + 11 * toy.scale.around
    assert toy.left() == f"about {seconds / 2 / 60:.0f} minutes"
    train(toy)
    assert toy.left() == "about 0 minutes"


def test_a_run_has_the_commit_at_which_it_was_started(toy, monkeypatch):
    """The project may change while it is trained, and before it is resumed."""
    commits = iter(["first", "second", "second", "third"])
    monkeypatch.setattr(started, "environment", lambda device: {"commit": next(commits)})
    run = FakeRun("a", "configs/a.py", toy.scale.output / "a", 5)
    run.start().wait()
    for _ in range(3):
        started.note_start(run)
    assert started.noted(run)["commit"] == "first then second"
    assert started.noted(run)["settings"] == started.recipe(run.config, [])
    (run.output / started.FILE).unlink()  # the run of an earlier program
    assert started.noted(run)["commit"] == "third"


def test_steps_are_timed_by_the_clock_only_while_nothing_is_trained(toy, monkeypatch):
    toy.steps.unlink()
    training = []

    def measured(file, experiment, *_):
        training.append(len(toy._jobs))
        file.write_text(json.dumps({"toy": {"alone": 0.1, "other": 0.2, "tuned": 0.2}}))
        return session.read_costs(file, experiment)

    monkeypatch.setattr(session, "measured_costs", measured)
    monkeypatch.setattr(session, "needs_idle_machine", lambda: True)
    train(toy)
    assert training == [0] and not list(toy.missing()) and not toy.failed


TEACHER = Line("teacher", "teacher", "configs/t.py", folder="taught", seeds=1)
TAUGHT = Line("taught", "taught", "configs/b.py", after=TEACHER)


def test_only_a_finished_run_of_its_config_is_a_teacher(toy, monkeypatch):
    monkeypatch.setattr(session, "ROOT", toy.scale.output)
    monkeypatch.setattr(Session, "_folder", lambda self, line: self.scale.output / line.folder)
    toy.experiments = [replace(TOY, lines=(TAUGHT,), baselines=(), seeds=1)]
    toy.scale = replace(toy.scale, longest=5)
    foreign = toy.scale.output / "taught" / "model_final.pth"
    foreign.parent.mkdir()
    foreign.write_bytes(b"weights of something else")
    assert [line.name for (line,) in [(x[1],) for x in toy.missing()]] == ["teacher"]
    toy._ready.clear()
    (foreign.parent / "settings").write_text("another config")
    train(toy)
    assert list(toy.failed) == ["toy/teacher seed 0"]
    assert "with other settings" in toy.failed["toy/teacher seed 0"]
    assert not toy.results.all()


def test_another_teacher_is_a_change(toy, monkeypatch):
    teacher = "one"
    monkeypatch.setattr(FakeRun, "weights", lambda run: teacher if "b.py" in run.config else "")
    train(toy)
    for teacher, changed in (("", 0), ("one", 0), ("another", 7)):  # noqa: B007  (read above)
        toy.mark_changed()
        assert sum(line.get("config_changed", False) for line in toy.results.all()) == changed


def test_claims_come_first():
    claim = replace(TOY, name="claim", claim=True)
    one = Session([TOY, claim], CPU, Results(Path("none.jsonl")), Path("none.json"), print)
    names = [(experiment.name, seed) for experiment, _, seed in one.wanted()]
    assert names == [(n, s) for n in ("claim", "toy") for s in (0, 1) for _ in TOY.lines]


def test_a_changed_config_is_counted_and_repeated_on_demand(toy, monkeypatch):
    train(toy)
    toy.mark_changed()
    assert "11 runs" in pages.where(toy.results, CPU) and "of them" not in pages.where(
        toy.results, CPU
    )
    before = FakeRun.recipe
    monkeypatch.setattr(FakeRun, "recipe", lambda run: before(run)[::-1])
    toy.mark_changed()
    assert "11 of them" in pages.where(toy.results, CPU)
    toy.again = True
    # The trials first: they may choose another value.
    assert {job.seed for _, _, job in toy.missing()} == {TRIAL_SEED, 0, 1}
    toy._given.clear()
    train(toy)
    assert not list(toy.missing()) and len(toy.results.all()) == 11
