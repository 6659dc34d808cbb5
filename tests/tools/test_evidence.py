"""The program evidence.py: what it trains and in which order, its tables, pages and plots."""

import hashlib
import json
import subprocess
import sys
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
from detectron2.config import LazyConfig

import evidence
from experiments import ROOT, pages, plots, session, started
from experiments.jobs import chosen_value, job_of_line, trials
from experiments.lines import TRIAL_SEED, Experiment, Line, Tuning
from experiments.plan import EXPERIMENTS, check_lines, named
from experiments.results import Job, Results
from experiments.scales import CPU, GPU, quick
from experiments.session import FIGURES, Session
from experiments.tables import interval, table, tuned, with_interval
from kddetr.engine import apply_overrides
from kddetr.errors import UsageError
from runs import Run, run_all

ALONE = Line("alone", "alone", "configs/a.py")
OTHER = Line("other", "other", "configs/b.py", ("x=1",))
TUNED = Line("tuned", "tuned", "configs/b.py", tuning=Tuning("w", (0.3, 1.0, 3.0), default=1.0))
LONGER = Line("longer", "longer", "configs/a.py", same_time_as="other")
TOY = Experiment("toy", "part", (ALONE, OTHER, TUNED, LONGER), iterations=100, seeds=2)


def result(job: Job, ap: float, **more) -> dict:
    """A made-up line of the file."""
    of_job = {name: getattr(job, name) for name in ("config", "seed", "iterations")}
    figures = dict.fromkeys(FIGURES, ap) | {f"val_{name}": ap for name in FIGURES}
    rest = {"seconds": 10.0, "step_seconds": 0.1, "settings": "", "commit": "abc"}
    return (
        of_job
        | {"overrides": list(job.overrides), "same_time_as": job.same_time_as}
        | figures
        | rest
        | more
    )


def filled(file: Path, aps: dict[str, list[float]], experiment: Experiment = TOY) -> Results:
    """A file with the APs of each line by seed."""
    results = Results(file)
    for name, values in aps.items():
        for seed, ap in enumerate(values):
            job = job_of_line(experiment, experiment.line(name), seed, CPU, results)
            results.add(result(job, ap))
    return results


def test_an_interval_is_that_of_students_t_distribution():
    # Mean 2, standard deviation 1, n = 3: the quantile of two degrees of freedom is 4.3027.
    low, high = interval([1.0, 2.0, 3.0])
    assert low == pytest.approx(2 - 4.3027 / 3**0.5, abs=1e-4)
    assert high - 2 == pytest.approx(2 - low)
    assert with_interval([2.0]) == "+2.0" and with_interval([]) == ""
    with pytest.raises(ValueError):
        interval([1.0])


def test_differences_are_those_of_the_same_seed(tmp_path):
    results = filled(tmp_path / "x.jsonl", {"other": [16.0, 24.0, 40.0], "alone": [10.0, 20.0]})
    head, _, first, second = table(TOY, results).splitlines()
    assert head == "| | seeds | AP | AP50 | AP75 | difference to alone |"
    assert first == "| alone | 2 | 15.0 ± 7.1 | 15.0 ± 7.1 | 15.0 ± 7.1 | |"
    # 16 - 10 and 24 - 20; the third seed has no partner.
    assert second.startswith("| other | 3 | 26.7 ± ") and second.endswith("| +5.0 [-7.7, +17.7] |")


def test_a_tuned_line_takes_the_best_value_on_the_validation_images(tmp_path):
    results = Results(tmp_path / "x.jsonl")
    tried = trials(TOY, TUNED, CPU)
    assert [job.overrides for job in tried.values()] == [("w=0.3",), (), ("w=3",)]
    assert {(job.seed, job.iterations) for job in tried.values()} == {(TRIAL_SEED, 50)}
    assert job_of_line(TOY, TUNED, 0, CPU, results) is None
    for value, job in tried.items():
        results.add(result(job, 90.0 - value, val_AP=1.0 + value))
    assert chosen_value(TOY, TUNED, CPU, results) == 3.0
    assert job_of_line(TOY, TUNED, 0, CPU, results).overrides == ("w=3",)


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


def test_a_choice_at_the_end_of_the_tried_values_is_marked(tmp_path):
    results = Results(tmp_path / "x.jsonl")
    for best, shown in ((0.3, "0.3 (smallest tried)"), (1.0, "1"), (3.0, "3 (largest tried)")):
        for value, job in trials(TOY, TUNED, CPU).items():
            results.add(result(job, 1.0, val_AP=9.0 if value == best else 1.0))
        assert tuned(TOY, TUNED, results, CPU) == shown
    assert tuned(TOY, ALONE, results, CPU) == ""


def test_equal_time_means_as_many_iterations_as_the_time_allows(tmp_path):
    results = Results(tmp_path / "x.jsonl")
    costs = {"alone": 0.1, "other": 0.3}
    longer = job_of_line(TOY, LONGER, 0, CPU, results, costs)
    assert longer.iterations == 300
    # It is found again on a machine that does not know the costs.
    assert job_of_line(TOY, LONGER, 0, CPU, results).key == longer.key
    assert longer.key != job_of_line(TOY, ALONE, 0, CPU, results).key


def test_a_file_is_appended_to_and_a_repeated_run_replaced(tmp_path):
    file = tmp_path / "x.jsonl"
    filled(file, {"alone": [10.0], "other": [20.0]})
    first = file.read_text()
    results = Results(file)
    results.add(result(job_of_line(TOY, ALONE, 1, CPU, results), 30.0))
    assert file.read_text().startswith(first)
    results.add(result(job_of_line(TOY, ALONE, 0, CPU, results), 11.0))
    assert [line["AP"] for line in map(json.loads, file.read_text().splitlines())] == [11, 20, 30]
    file.write_text(file.read_text() + '{"config"')
    with pytest.raises(UsageError, match=r"Line 4 of .*x.jsonl is no result"):
        Results(file)


def test_two_programs_fill_one_file(tmp_path):
    file = tmp_path / "x.jsonl"
    filled(file, {"alone": [10.0]})
    one, two = Results(file), Results(file)
    jobs = [job_of_line(TOY, TOY.line(name), 0, CPU, one) for name in ("alone", "other")]
    two.add(result(jobs[1], 20.0))
    one.add(
        result(jobs[0], 11.0)
    )  # it has not read what the other one wrote, and rewrites the file
    assert [line["AP"] for line in Results(file).all()] == [11.0, 20.0]
    two.add(result(replace(jobs[1], seed=1), 21.0))
    one.mark(lambda line: line["AP"] > 15)
    assert [line["config_changed"] for line in Results(file).all()] == [False, True, True]
    assert not list(tmp_path.glob("*.partial"))


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


def test_all_lines_are_trained_once_and_seed_after_seed(toy):
    train(toy)
    assert not toy.failed and not list(toy.missing())
    found = Results(toy.results.file).all()
    # Four lines with two seeds, and three trials.
    assert len(found) == 4 * 2 + 3
    order = [line["seed"] for line in found if line["seed"] != TRIAL_SEED]
    # The tuned line waits for its trials; meanwhile the next seed is begun.
    assert order[:3] == [0, 0, 0] and order.count(0) == order.count(1)
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
        assert sum(line["config_changed"] for line in toy.results.all()) == changed


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


def test_lines_and_experiments_have_names_of_their_own():
    names = [experiment.name for experiment in EXPERIMENTS]
    assert len(set(names)) == len(names)
    for experiment in EXPERIMENTS:
        lines = [line.name for line in experiment.lines]
        assert len(set(lines)) == len(lines), experiment.name
        assert set(experiment.baselines) <= set(lines), experiment.name
        cells = {1 if isinstance(x.title, str) else len(x.title) for x in experiment.lines}
        assert cells == {len(experiment.heads)}, experiment.name
    assert [e.name for e in named(["sampling"])] == ["sampling"]
    # What downloads its images is trained on request only.
    asked = {"real", "real_other_forest"}
    assert {e.name for e in EXPERIMENTS} - {e.name for e in named(None)} == asked
    with pytest.raises(UsageError, match="did you mean sampling"):
        named(["samplign"])
    check_lines(named(["sampling"]), ["both_frw"])
    with pytest.raises(UsageError, match="'both_fwr'; did you mean both_frw"):
        check_lines(named(["sampling"]), ["both_fwr"])


@pytest.mark.parametrize("file", sorted({x.config for e in EXPERIMENTS for x in e.lines}))
def test_configs_take_the_overrides_of_their_lines(file):
    cfg = LazyConfig.load(str(ROOT / file))
    found = {}  # lines that override the same keys are tried once
    for line in (line for e in EXPERIMENTS for line in e.lines if line.config == file):
        overrides = [*line.overrides, *(line.tuning.overrides(9.0) if line.tuning else ())]
        found[tuple(override.partition("=")[0] for override in overrides)] = overrides
    for overrides in found.values():
        apply_overrides(deepcopy(cfg), overrides)


@pytest.mark.parametrize(
    "file", ["evidence/pkd_neck", "evidence/labels_alone", "quickstart/teacher"]
)
def test_a_scale_sets_what_a_config_has(file):
    file = f"configs/{file}.py"
    cfg = LazyConfig.load(str(ROOT / file))
    counted = ["dataloader.train.dataset.count=100"] if "labels" in file else []
    for scale in (GPU, quick(Path("x"))):
        apply_overrides(cfg, scale.fitting(file, counted))
    detectors = [cfg.model.student, cfg.model.teacher.model] if "pkd" in file else [cfg.model]
    sizes = [GPU.student, GPU.teacher] if "pkd" in file else [GPU.student]
    if file.endswith("teacher.py"):
        sizes = [GPU.teacher]
    found = [str(detector.embed_dim) for detector in detectors]
    assert found == [size["embed_dim"] for size in sizes]
    assert GPU.needs_teacher(file) == ("pkd" in file)
    assert cfg.optimizer.lr == 1e-3
    rcnn = "configs/quickstart/faster_rcnn_distilled.py"  # which does not become larger
    assert not [x for x in GPU.fitting(rcnn, []) if "optimizer" in x]
    if counted:  # the last one that counts is that of 24 images
        assert cfg.dataloader.train.dataset.count == 12


def test_lines_of_an_experiment_differ():
    for experiment in EXPERIMENTS:
        jobs = [(x.config, x.overrides, x.tuning, x.same_time_as) for x in experiment.lines]
        assert len(set(jobs)) == len(jobs), experiment.name


def test_pages_are_what_their_files_say():
    """`python tools/evidence.py --page-only` writes them."""
    for page, text in pages.current(ROOT / "docs").items():
        assert text == page.read_text(encoding="utf-8"), page.name


def test_every_experiment_and_plot_is_on_a_page():
    texts = [page.read_text(encoding="utf-8") for page in (ROOT / "docs").glob("*.md")]
    blocks = [match for text in texts for match in pages.BLOCK.finditer(text)]
    shown = [match[3] for match in blocks if match[2] == "cpu"]
    wanted = [e.name for e in EXPERIMENTS] + [f"plot_{name}" for name in plots.PLOTS] + ["where"]
    assert sorted(shown) == sorted(wanted)


def test_a_page_gets_the_tables_and_figures_that_its_markers_name(tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "EXPERIMENTS", (TOY,))
    docs = tmp_path / "docs"
    results = filled(pages.results_file(docs, CPU), {"alone": [10.0, 20.0], "other": [16.0, 24.0]})
    text = (
        "before\n<!-- evidence on cpu: toy -->\nold\n<!-- end -->\n"
        "gains <!-- cpu: toy other gain -->0<!-- --> and <!-- cpu: toy other AP -->0<!-- -->\n"
    )
    (docs / "page.md").write_text(text)
    (docs / "other.md").write_text("no marker")
    pages.write_pages(docs)
    found = (docs / "page.md").read_text()
    assert table(TOY, results) in found and "old" not in found
    assert "gains <!-- cpu: toy other gain -->+5.0 [-7.7, +17.7]<!-- --> and" in found
    assert found.endswith("AP -->20.0 ± 5.7<!-- -->\n")
    pages.write_pages(docs)
    assert (docs / "page.md").read_text() == found
    for wrong in ("evidence on cpu: tooy", "evidence on cpu: plot_x"):
        with pytest.raises(UsageError, match="There is no"):
            pages.updated(f"<!-- {wrong} -->\n<!-- end -->", {"cpu": pages.evidence_of(docs)})
    with pytest.raises(UsageError, match="toy has no result of 'othr'; did you mean other"):
        pages.updated("<!-- cpu: toy othr AP --><!-- -->", {"cpu": pages.evidence_of(docs)})


def test_plots_are_drawn_where_there_are_results(tmp_path):
    assert plots.draw_all(tmp_path, Results(tmp_path / "none.jsonl"), CPU) == []
    results = Results(tmp_path / "x.jsonl")
    for experiment in named(["consistency", "labels"]):
        for line in (line for line in experiment.lines if not line.tuning):
            for seed in (0, 1):
                job = job_of_line(experiment, line, seed, CPU, results)
                results.add(result(job, 10.0 + seed + len(line.name)))
    drawn = plots.draw_all(tmp_path, results, CPU)
    assert [file.name for file in drawn] == ["consistency_cpu.png", "labels_cpu.png"]


@pytest.mark.slow
def test_a_tiny_line_is_trained_and_evaluated(tmp_path, monkeypatch):
    """`make evidence ARGS=--quick` does this with every line."""
    monkeypatch.setattr(evidence, "quick", lambda folder: quick(tmp_path))
    words = ["evidence.py", "--quick", "--only", "sampling", "--lines", "both_frw"]
    monkeypatch.setattr(sys, "argv", words)
    evidence.main()
    (found,) = tmp_path.glob("distilled_*")
    assert Run("", "configs/quickstart/distilled.py", found, 2).evaluations()[-1][0] == 2
