"""The program evidence.py: its experiments, their results, tables, pages and plots."""

import json
import sys
import threading
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
from detectron2.config import LazyConfig

import evidence
from benchmarking.plan import MEASUREMENTS
from experiments import ROOT, pages, plots
from experiments.jobs import chosen_value, job_of_line, trials
from experiments.lines import TRIAL_SEED, Line
from experiments.paper import CONSISTENCY
from experiments.plan import EXPERIMENTS, check_lines, named
from experiments.results import Results, locked
from experiments.scales import CPU, GPU, quick
from experiments.speed import STUDENTS, speed_table
from experiments.tables import correction, table, tuned
from kddetr.engine import apply_overrides
from kddetr.errors import UsageError
from runs import Run
from tests.tools.toy_experiment import ALONE, LONGER, OTHER, TOY, TUNED, filled, result


def test_differences_are_those_of_the_same_seed(tmp_path):
    results = filled(tmp_path / "x.jsonl", {"other": [16.0, 24.0, 40.0], "alone": [10.0, 20.0]})
    head, _, first, second = table(TOY, results).splitlines()
    assert head == "| | seeds | AP | AP50 | AP75 | difference to alone |"
    assert first == "| alone | 2 | 15.0 ± 7.1 | 15.0 ± 7.1 | 15.0 ± 7.1 | |"
    # 16 - 10 and 24 - 20; the third seed has no partner.
    assert second.startswith("| other | 3 | 26.7 ± ") and second.endswith("| +5.0 [-7.7, +17.7] |")


def test_a_correction_names_the_differences_that_many_lines_explain(tmp_path):
    third = Line("third", "a third", "configs/c.py")
    toy = replace(TOY, lines=(ALONE, OTHER, third), seeds=3)
    zero = {"alone": [10.0, 20.0, 30.0], "other": [15.0, 25.2, 34.8]}
    # The mean of 3, 5 and 7 is 4.33 standard errors from 0; 4.30 are needed, and 6.21 of two lines.
    narrow = filled(tmp_path / "a.jsonl", zero | {"third": [13.0, 25.0, 37.0]}, toy)
    said = "With Bonferroni's correction for the 2 differences of a column, "
    assert correction(toy, narrow) == (
        said + "these are no longer told from 0: *a third* to *alone*."
    )
    for aps in ([15.0, 25.0, 35.1], [10.0, 29.0, 33.0]):  # told from 0 all the same; never told
        found = filled(tmp_path / f"{aps[1]}.jsonl", zero | {"third": aps}, toy)
        assert correction(toy, found) == said + "none is lost."
    assert correction(toy, Results(tmp_path / "none.jsonl")) == ""


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
    assert [line.get("config_changed") for line in Results(file).all()] == [None, True, True]
    assert not list(tmp_path.glob("*.partial"))
    waiting = threading.Thread(target=two.add, args=[result(replace(jobs[1], seed=2), 22.0)])
    with locked(tmp_path):
        waiting.start()
        waiting.join(0.05)
        assert len(Results(file).all()) == 3
    waiting.join()
    assert len(Results(file).all()) == 4


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
    # What downloads its images, or needs an optional package, is trained on request only.
    asked = {"real", "real_other_forest", "realtime"}
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
        apply_overrides(deepcopy(cfg), overrides)  # raises for a key that the config lacks


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


def test_no_line_of_a_page_begins_with_the_marker_of_a_figure():
    # A comment at the start of a line ends the paragraph or the list item before it.
    found = {
        page.name: [line for line in text.splitlines() if pages.FIGURE.match(line.lstrip())]
        for page, text in pages.current(ROOT / "docs").items()
    }
    assert not {name: lines for name, lines in found.items() if lines}


def test_every_experiment_and_plot_is_on_a_page():
    texts = [page.read_text(encoding="utf-8") for page in (ROOT / "docs").glob("*.md")]
    blocks = [match for text in texts for match in pages.BLOCK.finditer(text)]
    shown = [match[3] for match in blocks if match[2] == "cpu"]
    wanted = [e.name for e in EXPERIMENTS] + [f"plot_{name}" for name in plots.PLOTS]
    wanted += ["where", "speed", "answers"]
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
    marker = "<!-- cpu: toy alone minus_other -->"
    shown = pages.updated(f"{marker}<!-- -->", {"cpu": pages.evidence_of(docs)})
    assert shown == f"{marker}-5.0 [-17.7, +7.7]<!-- -->"
    with pytest.raises(UsageError, match="toy has no result of 'othr'"):
        wrong = "<!-- cpu: toy alone minus_othr --><!-- -->"
        pages.updated(wrong, {"cpu": pages.evidence_of(docs)})


def test_plots_are_drawn_where_there_are_results(tmp_path):
    assert plots.draw_all(tmp_path, Results(tmp_path / "none.jsonl"), CPU) == []
    results = Results(tmp_path / "x.jsonl")
    for experiment in (CONSISTENCY, *named(["labels"])):
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


def test_students_are_shown_beside_their_speed(tmp_path):
    """Cells of what has not been measured are empty, and so is a table of nothing else."""
    experiments, results = {e.name: e for e in EXPERIMENTS}, Results(tmp_path / "x.jsonl")
    assert not speed_table(experiments, results, {})
    wanted = {measurement for _, measurement, *_ in STUDENTS}
    assert wanted < {m.name for m in MEASUREMENTS if m.table == "students"}
    times = {"batch_1": {"seconds": {"median": 0.0123}}, "batch_8": {"images_per_second": 99.54}}
    alone = {"student_alone": {"parameters": 353_000, **times}}
    experiment = experiments["to_dino"]
    job = job_of_line(experiment, experiment.line("alone"), 0, CPU, results)
    results.add(result(job, 12.34))
    rows = speed_table(experiments, results, {"student_dab": alone}).splitlines()
    assert any("| 0.35 M | 12.3 | 99.5 |" in row and "DAB-DETR" in row for row in rows)
    assert any("DINO" in row and "650" in row and "12.3" in row for row in rows)
