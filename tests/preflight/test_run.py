"""What a preflight finds, a config for each finding, and that a training does not notice it."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.data import DatasetCatalog
from fvcore.common.param_scheduler import LinearParamScheduler

from kddetr.engine import Trainer, load_config, program
from kddetr.engine.auto_weight import (
    settle_weight,
    starting_distiller,
    starting_student,
    train_trial,
    trial_length,
)
from kddetr.errors import ConfigError
from kddetr.points import SpecificSampler
from kddetr.preflight import before_training, run_preflight
from kddetr.teachers import CachedEncoder, RecordedTeacher, Vocabulary
from tests.preflight.seeing import SeeingTeacher
from tests.records import record_of
from tests.tiny import assert_same_tensors, tiny_detector

ROOT = Path(__file__).parents[2]
NAMES = ["class1", "class5", "class9"]


def trained(cfg) -> Trainer:
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()
    return trainer


def test_a_good_teacher_is_measured(config):
    cfg = config(L(SeeingTeacher)(classes=NAMES), max_iter=1000)
    report = run_preflight(cfg, seconds=1000)
    report.require()
    found = json.loads(Path(cfg.train.output_dir, "preflight.json").read_text())
    assert found["refusals"] == [] and found["warnings"] == report.warnings
    assert found["teacher"]["AP"] == pytest.approx(100) and found["teacher"]["images"] == 8
    assert set(found["teacher"]["classes"]) == set(NAMES) and found["student"] is None
    assert found["vocabulary"]["known"] == NAMES and found["vocabulary"]["covered_boxes"] == 1
    assert found["labels"] == {"images": 8, "counted_boxes": 32}
    assert set(found["step_seconds"]) == {"plain", "first", "waiting"}
    assert set(found["memory_mb"]) == {"plain", "distilled"}
    assert found["gradient_ratio"] > 0 and len(found["gradient_ratios"]) == 10
    parts = found["eta_parts"]
    assert found["eta_seconds"] == pytest.approx(parts["training"] + parts["evaluations"])
    text = str(report)
    assert "AP 100.0 on 8 validation images" in text and max(map(len, text.splitlines())) <= 100


def test_a_training_after_it_is_that_without_it_bit_for_bit(config):
    """Also where the order of the images is drawn at random."""
    runs = []
    for folder in ("with", "without"):
        cfg = config(folder=folder, max_iter=2)
        cfg.dataloader.train.seed = None
        np.random.seed(7)
        if folder == "with":
            report = run_preflight(cfg, seconds=0)
            assert any("3 batches instead of 10" in words for _, words in report.rows)
        runs.append(trained(cfg).model.state_dict())
    assert_same_tensors(*runs)


def test_a_weight_of_auto_becomes_a_number_that_balances_the_gradients(config):
    """The run equals one with that number, bit for bit, and a resumed run keeps it."""
    cfg, other = (config(weight="auto", folder="auto", max_iter=2) for _ in range(2))
    settle_weight(cfg)
    report = run_preflight(other, seconds=0)
    weight = cfg.model.weight
    assert isinstance(weight, float) and weight == other.model.weight != 1.0
    assert report.figures["weight"] == weight
    again = config(weight=weight, folder="number", max_iter=2)
    assert_same_tensors(trained(cfg).model.state_dict(), trained(again).model.state_dict())
    resumed = config(weight="auto", folder="auto", init_checkpoint="nowhere.pth")
    settle_weight(resumed, resume=True)
    assert resumed.model.weight == weight


def test_the_trial_of_auto_is_the_beginning_of_a_run_with_weight_1(config):
    assert [trial_length(n) for n in (2, 650, 5000, 10**6)] == [2, 30, 100, 500]
    cfg = config(weight="auto", max_iter=3)
    model = starting_distiller(cfg, starting_student(cfg))
    train_trial(model, iter(Trainer.build_train_loader(cfg)), cfg)
    run = trained(config(weight=1.0, folder="run", max_iter=3))
    assert_same_tensors(model.student.state_dict(), run.model.student.state_dict())


def test_train_net_measures_before_it_trains_where_it_is_told_to(config, monkeypatch):
    monkeypatch.setattr(program, "collect_env_info", str)  # takes longer than the training
    cfg = config(L(tiny_detector)(seed=1))
    before_training(cfg, program.parser().parse_args([]))
    assert not Path(cfg.train.output_dir).exists()
    args = program.parser().parse_args(["--preflight"])
    with pytest.raises(ConfigError, match="finds next to nothing"):
        program.train(cfg, args, before=[before_training])
    assert not Path(cfg.train.output_dir, "config.yaml").exists()


def test_frozen_normalisations_are_measured_as_they_are_trained(config):
    cfg = config(freeze=["neck"])
    student = tiny_detector()
    student.neck.norm = torch.nn.BatchNorm2d(1)
    model = starting_distiller(cfg, student)
    assert model.training and not student.neck.norm.training


def test_auto_is_a_value_of_the_weight_alone():
    file = str(ROOT / "configs" / "quickstart" / "distilled.py")
    assert load_config(file, ["model.weight=auto"]).model.weight == "auto"
    for override in ("model.weight=aut", "model.loss.class_loss.weight=auto"):
        with pytest.raises(ConfigError, match="must be"):
            load_config(file, [override])


def test_a_teacher_that_finds_nothing_and_remembers_images(config, tmp_path):
    """The student starts from the same weights, so the teacher is no better."""
    torch.save({"model": tiny_detector(seed=1).state_dict()}, tmp_path / "start.pth")
    teacher = L(CachedEncoder)(detector=L(tiny_detector)(seed=1), dtype="float32")
    report = run_preflight(config(teacher, init_checkpoint=str(tmp_path / "start.pth")), seconds=0)
    assert "finds next to nothing on 8 validation images" in report.refusals[0]
    with pytest.raises(ConfigError, match="finds next to nothing"):
        report.require()
    report.require(force=True)
    assert "no better than the weights that the student starts from" in report.warnings[0]
    found = report.figures
    assert found["student"]["AP"] == pytest.approx(found["teacher"]["AP"], abs=1e-3)
    assert set(found["step_seconds"]) == {"plain", "first", "again", "waiting"}


def test_a_teacher_of_some_classes_is_judged_on_these(config, dataset):
    """A schedule of the weight that begins with 0 does not hide the gradient ratio."""
    classes = ["class1", "dog", "class9"]
    names = {"classes": classes, "wanted": dataset, "partial": True}
    cfg = config(L(Vocabulary)(detector=L(SeeingTeacher)(), **names))
    cfg.model.weight_schedule = L(LinearParamScheduler)(start_value=0.0, end_value=1.0)
    report = run_preflight(cfg, seconds=0)
    assert report.figures["teacher"]["AP"] == pytest.approx(100)
    assert set(report.figures["teacher"]["classes"]) == {"class1", "class9"}
    assert report.refusals == [] and report.figures["gradient_ratio"] > 0
    (warning,) = [words for words in report.warnings if "class5" in words]
    assert "knows 2 of the 3 classes" in warning
    assert "in the classes that it knows" in report.rows[0][1]


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        (["Class1", "dog", "class-5"], r"knows none of the 3 classes of the data: 'class1' \(did"),
        (["class9", "dog", "cat"], "has no class 'class1'"),
    ],
)
def test_classes_that_the_teacher_does_not_have_are_refused(config, dataset, classes, words):
    teacher = L(Vocabulary)(detector=L(SeeingTeacher)(), classes=classes, wanted=dataset)
    report = run_preflight(config(teacher), seconds=0)
    (refusal,) = report.refusals
    assert re.search(words, refusal)
    assert "class5" in report.figures["vocabulary"]["unknown"]
    assert "The teacher knows" in str(report)


def detector_with_room_for(images: int) -> torch.nn.Module:
    def out_of_memory(detector, inputs):
        if detector.training and len(inputs[0]) > images:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    detector = tiny_detector()
    detector.register_forward_pre_hook(out_of_memory)
    return detector


def test_a_batch_that_is_too_large_is_refused_with_one_that_fits(config):
    cfg = config()
    cfg.dataloader.train.total_batch_size = 8
    cfg.model = L(detector_with_room_for)(images=2)
    report = run_preflight(cfg, seconds=0)
    assert "set train.accumulate=4" in report.refusals[0]
    cfg.train.accumulate = 4
    assert run_preflight(cfg, seconds=0).refusals == []


def test_a_weak_teacher_that_drowns_the_few_labels(config, tmp_path):
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "metrics.json").write_text('{"iteration": 9, "bbox/AP": 55.5}\n')
    findings = [
        SimpleNamespace(severity=severity, sentence=f"An {severity}.")
        for severity in ("error", "warning", "note")
    ]
    cfg = config(L(SeeingTeacher)(side=0.4), weight=1e4)
    report = run_preflight(cfg, student_alone=str(alone), findings=findings, seconds=0)
    assert report.figures["teacher"]["AP"] == pytest.approx(30, abs=0.1)
    better, few, drowned, *_, data = report.warnings
    assert "no better than the student alone (AP 55.5): a distillation" in better
    assert "only 8 labelled images and the teacher has AP 30.0" in few
    assert "the labels will hardly count: lower model.weight from 10000" in drowned
    assert data == "An warning." and report.refusals == ["An error."]
    assert "An note." not in str(report)


def test_the_student_alone_is_looked_for_in_an_output_folder(config, tmp_path):
    with pytest.raises(ConfigError, match="no output folder of a run that was evaluated"):
        run_preflight(config(), student_alone=str(tmp_path / "nowhere"))


def test_a_record_is_judged_on_the_images_that_it_has(config, dataset, tmp_path):
    records = DatasetCatalog.get(dataset)
    cfg = config(L(RecordedTeacher)(path=record_of(SeeingTeacher(), tmp_path / "r", records)))
    cfg.model.sampler = L(SpecificSampler)()
    report = run_preflight(cfg, seconds=0)
    found = report.figures["teacher"]
    assert found["AP"] == pytest.approx(100) and found["judged_on"] == "training"
    assert any("because a record has no others" in words for _, words in report.rows)
    assert "again" in report.figures["step_seconds"]


def test_a_detector_alone_is_timed(config):
    cfg = config()
    cfg.model = cfg.model.student
    report = run_preflight(cfg, seconds=0)
    assert set(report.figures["step_seconds"]) == {"plain", "waiting"}
    assert report.figures["teacher"] is None and report.warnings == report.refusals == []


def test_without_labels_only_the_points_teach(config):
    cfg = config()
    cfg.dataloader.train.mapper.labeled = False
    report = run_preflight(cfg, seconds=0)
    assert report.figures["gradient_ratio"] is None
    assert set(report.figures["step_seconds"]) == {"first", "waiting"}
    cfg.model.weight = "auto"
    with pytest.raises(ConfigError, match=r"no batch had both: set model\.weight to a number"):
        settle_weight(cfg)
