"""The report of a run: its figures are those of the metrics and of the evaluator; a mistake in it
never loses a run.
"""

import copy
import json
import logging
import math
import re

import pytest
from engine_toy import write_dataset

import report
from kddetr.engine import Trainer, load_config
from kddetr.report import ReportHook, Run, read_run, write_report
from kddetr.report import hook as hook_module
from kddetr.report.findings import Findings, gather
from kddetr.report.models import detectors_of, load_model
from kddetr.report.partners import find_partners
from kddetr.report.run_page import run_page
from kddetr.report.sample import Asked, Deadline, Sample, ask
from kddetr.report.tables import class_table, results_table
from kddetr.teachers import Vocabulary
from tests.report.runs import PAIR, STUDENT, make_run, write_run
from tests.tiny import assert_same_tensors
from tests.tiny_config import tiny_config


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A tiny distillation that was trained for two steps, with the report that ended it."""
    folder = tmp_path_factory.mktemp("trained")
    name = write_dataset(folder / "data", "report_tiny")
    cfg = tiny_config(load_config(PAIR), folder, name, watch_images=0, report_images=1)
    trainer = Trainer(cfg)
    trainer.register_hooks([ReportHook()])
    trainer.resume_or_load(resume=False)
    trainer.train()
    return folder / "run", trainer


def test_a_run_ends_with_a_page_of_its_own(trained):
    folder, _ = trained
    page = (folder / "report.html").read_text()
    assert "<script" not in page and "<link" not in page
    assert "http" not in page.replace("http://www.w3.org", "")
    assert page.count("data:image/jpeg;base64,") >= 1 and len(page) < 3e6
    for title in ("Results", "Curves", "AP of each class", "still differ most", "Settings"):
        assert title in page
    assert "on 1 of 6 images" in page


def test_the_figures_are_those_of_the_metrics_and_of_the_evaluator(trained):
    folder, trainer = trained
    run = read_run(folder)
    model = trainer.unwrapped
    sample = ask(detectors_of(model), trainer.cfg, images=100, deadline=Deadline(None))
    assert sample.is_whole and list(sample.asked) == ["student", "teacher"]
    for name, detector in detectors_of(model).items():
        expected = Trainer.test(trainer.cfg, detector.eval())["bbox"]
        assert sample.asked[name].results == pytest.approx(expected, nan_ok=True)
    student = sample.asked["student"]
    assert run.results == pytest.approx(dict(student.results), nan_ok=True)
    assert student.parameters == sum(p.numel() for p in model.student.parameters())
    rows = {row["name"]: row for row in results_table(Findings(run, sample=sample))["rows"]}
    assert rows["student, distilled"]["cells"][0]["text"] == f"{run.value:.1f}"
    assert rows["teacher"]["cells"][0]["text"] == f"{sample.asked['teacher'].results['AP']:.1f}"


def test_the_loaded_model_is_the_trained_one(trained):
    folder, trainer = trained
    loaded = load_model(read_run(folder))
    assert_same_tensors(loaded.student.state_dict(), trainer.unwrapped.student.state_dict())


def test_the_sample_ends_with_the_deadline(trained):
    _, trainer = trained
    detectors = {"student": trainer.unwrapped.student}
    assert len(ask(detectors, trainer.cfg, images=6, deadline=Deadline(0.0)).records) == 1
    some, more = (ask(detectors, trainer.cfg, images=n, deadline=Deadline(None)) for n in (2, 4))
    assert [x["image_id"] for x in some.records] == [x["image_id"] for x in more.records[:2]]


@pytest.mark.parametrize("error", [RuntimeError("odd"), KeyError("odd"), MemoryError()])
def test_an_error_of_the_report_is_a_warning(trained, monkeypatch, caplog, error):
    def fails(*_, **__):
        raise error

    monkeypatch.setattr(hook_module, "write_report", fails)
    hook, (_, trainer) = ReportHook(), trained
    hook.trainer = trainer
    hook.before_train()
    with caplog.at_level(logging.WARNING):
        hook.after_train()
    assert "The run is saved, but not its report" in caplog.text


def test_the_student_alone_is_found_beside_the_run(tmp_path):
    with_images = {"dataloader__train__unlabeled_per_batch": 4}
    own = make_run(tmp_path / "own", 23.0, **with_images)
    write_run(make_run(tmp_path / "alone", 20.0, STUDENT))
    write_run(make_run(tmp_path / "other_data", 1.0, STUDENT, dataloader__test__dataset__names="x"))
    (tmp_path / "no_run").mkdir()
    (tmp_path / "no_run" / "config.yaml").write_text("[")
    write_run(own)
    file = write_report(own.folder, images=0)
    page = file.read_text()
    assert "The distilled student has +3.0 AP compared with the student alone in one pair" in page
    write_run(make_run(tmp_path / "other_seed", 26.0, seed=1, **with_images))
    write_run(make_run(tmp_path / "alone_1", 22.0, STUDENT, seed=1))
    found = gather(own, images=0)
    assert found.partners.difference.values == {0: 3.0, 1: 4.0}
    assert "better than the student alone by 3.5 AP" not in run_page(found)  # 3.5 [-2.9, 9.9]
    table = class_table(found)
    changes = {row["name"]: row["change"] for row in table["first"]}
    assert changes == pytest.approx({"3": 3.0, "7": 3.0})


def test_a_plain_detector_and_a_run_without_an_evaluation_have_pages(tmp_path):
    run = make_run(tmp_path / "plain", 20.0, STUDENT)
    page = run_page(Findings(run))
    assert "This detector has 20.0 AP after 20 iterations" in page and "he teacher" not in page
    for line in run.lines:
        for key in [key for key in line if key.startswith("bbox")]:
            del line[key]
    page = run_page(Findings(Run(run.folder, run.cfg, run.lines)))
    assert "was not evaluated" in page and "<svg" in page


def test_what_lies_in_the_folder_is_shown_and_names_are_escaped(tmp_path):
    run = make_run(tmp_path / "<b>", 23.0)
    folder = write_run(run)
    content = {"teacher": {"AP": 30.25, "images": 50}, "warnings": ["<script>weak</script>"]}
    (folder / "preflight.json").write_text(json.dumps(content))
    (folder / "data.html").write_text("")
    page = run_page(gather(run, images=0))
    assert "&lt;script&gt;weak" in page and "<script>" not in page
    assert "<h1>&lt;b&gt;: report" in page
    assert 'href="data.html"' in page and "teacher (preflight, 50 images)" in page
    assert re.search(r"teacher\.AP</code></td><td>30\.25", page)
    (folder / "preflight.json").write_text("{")
    assert "preflight.json cannot be read" in run_page(gather(run, images=0))


def test_the_program_ends_in_a_sentence_where_the_weights_do_not_fit(tmp_path, capsys):
    folder = write_run(make_run(tmp_path / "own", 23.0))
    report.main([str(folder), "--images", "1"])
    page = (folder / "report.html").read_text()
    assert "No detections are shown" in page and "model_final.pth" in page
    with pytest.raises(SystemExit):
        report.main([str(folder), "--alone", str(tmp_path / "none")])
    assert "There is no folder" in capsys.readouterr().err


def test_of_many_classes_the_largest_changes_come_first(tmp_path):
    run = make_run(tmp_path, 20.0, STUDENT)
    run.lines[-1] |= {f"bbox/AP-c{i}": float(i) for i in range(200)}
    run.lines[-1] |= {f"bbox/AP-without objects {i}": float("nan") for i in range(30)}
    table = class_table(Findings(run))
    first, rest = ([row["change"] for row in table[part]] for part in ("first", "rest"))
    assert len(first) == 20 and len(rest) == 212
    assert all(map(math.isnan, rest[182:]))
    assert min(first[:10]) >= max(rest[:182]) and max(first[10:]) <= min(rest[:182])
    assert "The other 212 classes" in run_page(Findings(run))


def test_teacher_and_student_are_compared_on_the_same_images(tmp_path):
    """On the two images of the sample, the student has more than on all and than the teacher."""
    run, alone = make_run(tmp_path / "own", 23.0), make_run(tmp_path / "alone", 20.0, STUDENT)
    partners = find_partners(run, [alone], deadline=Deadline(None))
    asked = {"teacher": Asked(9, (1.0,), {"AP": 30.0}, ()), "student": Asked(1, (1.0,), {}, ())}

    def page(total: int, own: float) -> str:
        asked["student"] = Asked(1, (1.0,), {"AP": own}, ())
        sample = Sample([{}, {}], total, (), {}, asked, "a CPU", "time")
        return run_page(Findings(run, partners, sample))

    assert "closes 30 % of the way" in page(2, 23.0)
    some = page(9, 31.0)
    assert "The teacher (on 2 images) has 30.0, and this run has 31.0 on the same images." in some
    assert "of the way" not in some and "The teacher is not better" in some
    assert "The teacher is not better" not in page(9, 29.0)


def test_the_ap_of_a_teacher_of_some_of_the_classes_says_little_of_the_student(trained):
    """Classes that it does not know count 0 in its AP."""
    folder, trainer = trained
    model = copy.copy(trainer.unwrapped)
    inside, names = model.teacher, [str(i) for i in range(model.teacher.num_classes)]
    wanted = [*names[:-1], "new"]
    part = Vocabulary(detector=inside, classes=names, wanted=wanted, partial=True)
    object.__setattr__(model, "teacher", part)  # as the distiller does
    found = gather(read_run(folder), model, images=2)
    assert found.teacher_is_partial and found.sample
    page = run_page(found)
    assert f"The teacher knows {len(names) - 1} of the {len(names)} classes." in page
    assert "The teacher is not better" not in page


def test_a_run_whose_last_evaluation_has_no_number_says_so(tmp_path):
    run = make_run(tmp_path, float("nan"))
    assert "The last evaluation, after 20 iterations, has no AP." in run_page(Findings(run))
