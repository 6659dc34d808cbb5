"""Class names are recorded in a run, and compared wherever data and a detector meet."""

import logging

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import LazyConfig
from detectron2.data import (
    MetadataCatalog,
    build_detection_test_loader,
    get_detection_dataset_dicts,
)

from kddetr.checkpoint import AssumedClasses, Checkpointer, CheckpointError, load_pretrained
from kddetr.data import DetectionMapper, registered_classes
from kddetr.engine import (
    ConfigError,
    Trainer,
    check_classes,
    check_evaluated,
    check_model,
    load_config,
    record_classes,
)
from kddetr.engine.classes import check_start
from kddetr.errors import UsageError
from kddetr.teachers import CachedEncoder, Vocabulary
from tests.tiny import tiny_detector, tiny_distiller

NAMES = ["class1", "class5", "class9"]  # of the toy
OTHER = ["class5", "class1", "class9"]
WORDS = "the same 3 classes in another order: class 0 is 'class5'"


@pytest.fixture
def cfg(toy, tmp_path, dataset):
    cfg = toy.toy_config(tmp_path, dataset, eval_period=0, max_iter=2)
    node = L(get_detection_dataset_dicts)(names=dataset, filter_empty=False)
    cfg.dataloader.test = L(build_detection_test_loader)(
        dataset=node, mapper=L(DetectionMapper)(is_train=False, augmentations=[]), num_workers=0
    )
    return cfg


def weights(toy, folder, classes=()) -> str:
    Checkpointer(toy.ToyDetector(), str(folder), classes=classes).save_weights("x")
    return str(folder / "x.pth")


def test_a_run_records_its_classes(cfg, tmp_path):
    assert record_classes(cfg) == NAMES == list(cfg.train.classes)
    cfg.train.classes = OTHER
    with pytest.raises(ConfigError, match=rf"{WORDS} in train\.classes .*train\.classes=null"):
        record_classes(cfg)


@pytest.mark.parametrize("name", ["${oc.env:HOME}", "a: b", "null", "1", "Ümlaut", "#", ""])
def test_any_name_is_the_same_in_a_saved_config(cfg, tmp_path, dataset, name):
    registered_classes(dataset)
    MetadataCatalog.get(dataset).thing_classes[0] = name
    expected = [name, *NAMES[1:]]
    assert record_classes(cfg) == expected == list(cfg.train.classes)
    LazyConfig.save(cfg, str(tmp_path / "config.yaml"))
    saved = load_config(str(tmp_path / "config.yaml"))
    assert list(saved.train.classes) == expected and record_classes(saved) == expected


def test_evaluation_compares_the_file_then_the_config_then_the_training_data(
    cfg, toy, tmp_path, caplog
):
    check_evaluated(cfg, {}, "x.pth")
    assert "x.pth has no class names, in itself or in a card" in caplog.text
    caplog.clear()
    check_evaluated(cfg, {"classes": NAMES}, "x.pth")
    assert not caplog.records
    with pytest.raises(CheckpointError, match=rf"the detector in x\.pth: {WORDS} in the file"):
        check_evaluated(cfg, {"classes": OTHER}, "x.pth")
    cfg.train.classes = OTHER
    check_evaluated(cfg, {"classes": NAMES}, "x.pth")  # the file knows better
    with pytest.raises(CheckpointError, match=rf"not those of train\.classes: {WORDS} in train"):
        check_evaluated(cfg, {}, "x.pth")
    cfg.train.classes = None
    other = toy.write_dataset(tmp_path / "training", "engine_toy_training")
    registered_classes(other)
    cfg.dataloader.train = {"dataset": {"names": other}}
    check_evaluated(cfg, {}, "x.pth")
    MetadataCatalog.get(other).thing_classes[:] = OTHER
    with pytest.raises(
        CheckpointError,
        match=r"'engine_toy_training'.* in the training data and .*; set train",
    ):
        check_evaluated(cfg, {}, "x.pth")
    cfg.dataloader.train = {"dataset": {"names": "engine_nowhere"}}
    check_evaluated(cfg, {}, "x.pth")  # training data that cannot be read is not needed


def test_cocos_names_may_be_spelled_in_another_way(cfg, dataset):
    """A published file has no names; its classes are others where most of them differ."""
    registered_classes(dataset)
    names = MetadataCatalog.get(dataset).thing_classes
    names[0] = "Class 1"
    check_evaluated(cfg, {"classes": AssumedClasses(NAMES)}, "x.pth")
    names[:] = ["class9", "class1", "class5"]
    with pytest.raises(CheckpointError, match="in another order"):
        check_evaluated(cfg, {"classes": AssumedClasses(NAMES)}, "x.pth")


def test_other_classes_at_the_start_are_a_warning_and_in_a_resumed_run_refused(cfg, caplog):
    record_classes(cfg)
    for loaded in ({}, {"classes": NAMES}):
        check_start(cfg, loaded, "x.pth", resumed=True)
    with caplog.at_level(logging.WARNING, logger="kddetr"):
        check_start(cfg, {"classes": NAMES}, "x.pth", resumed=False)
        assert "other classes" not in caplog.text
        check_start(cfg, {"classes": OTHER}, "x.pth", resumed=False)
    assert WORDS in caplog.text
    with pytest.raises(CheckpointError, match=rf"of a run with other classes .*{WORDS}"):
        check_start(cfg, {"classes": OTHER}, "x.pth", resumed=True)


def test_a_run_with_a_loaded_start_and_its_resume(cfg, toy, tmp_path, dataset, caplog):
    cfg.train.init_checkpoint = weights(toy, tmp_path, OTHER)
    cfg.dataloader.test = L(toy.ToyTestLoader)()
    trainer = Trainer(cfg)
    with caplog.at_level(logging.WARNING, logger="kddetr"):
        trainer.resume_or_load(resume=False)
    assert WORDS in caplog.text
    trainer.train()
    saved = torch.load(tmp_path / "run/model_final.pth", weights_only=False)
    assert saved["classes"] == NAMES
    MetadataCatalog.get(dataset).thing_classes[:] = OTHER
    cfg.train.classes = None
    with pytest.raises(CheckpointError, match="resume with the run's own data"):
        Trainer(cfg).resume_or_load(resume=True)


def teacher_with(tmp_path, classes):
    model = tiny_detector("dino", seed=3)
    Checkpointer(model, str(tmp_path), classes=classes).save_weights("teacher")
    return load_pretrained(tiny_detector("dino"), str(tmp_path / "teacher.pth"))


@pytest.mark.parametrize("wrapper", [None, CachedEncoder])
def test_a_teacher_of_other_classes_needs_a_vocabulary(cfg, tmp_path, wrapper):
    for classes, fits in ((NAMES, True), ((), True), (OTHER, False), (["a", "b", "c"], False)):
        teacher = teacher_with(tmp_path, classes)
        model = tiny_distiller(
            tiny_detector("dino", seed=1), wrapper(teacher) if wrapper else teacher
        )
        if fits:
            check_model(cfg, model)
            continue
        with pytest.raises(ConfigError, match=r"The teacher's file has other classes.*Vocabulary"):
            check_model(cfg, model)
    selected = Vocabulary(detector=teacher_with(tmp_path, OTHER), classes=OTHER, wanted=NAMES)
    check_model(cfg, tiny_distiller(tiny_detector("dino", seed=1), selected))


def test_a_vocabulary_knows_the_order_in_its_detectors_file(tmp_path):
    teacher = teacher_with(tmp_path, OTHER)
    with pytest.raises(UsageError, match=f"{WORDS} in its file"):
        Vocabulary(detector=teacher, classes=NAMES, wanted=NAMES)
    # The student's spelling of a class is no other order.
    spelled = [OTHER[0], "CLASS 1", OTHER[2]]
    assert Vocabulary(detector=teacher, classes=spelled, wanted=["CLASS 1"]).rows.tolist() == [1]


def test_names_are_compared_before_anything_is_built(cfg, toy, tmp_path):
    for training in (True, False):
        check_classes(cfg, "", training=training)
        check_classes(cfg, weights(toy, tmp_path, NAMES), training=training)
        check_classes(cfg, weights(toy, tmp_path), training=training)
        with pytest.raises(CheckpointError, match=WORDS):
            check_classes(cfg, weights(toy, tmp_path, OTHER), training=training)
        (tmp_path / "x.pth").write_bytes(b"damaged")  # which the load itself reports
        check_classes(cfg, str(tmp_path / "x.pth"), training=training)
    assert list(cfg.train.classes) == NAMES


@pytest.mark.parametrize("value", ["abc", "5", "[a,null]", "[a,[b]]", "[{a:1}]", "''"])
def test_what_is_no_list_of_names(toy, tmp_path, value):
    with pytest.raises(ConfigError, match=r"train\.classes must be (of type list|a list of names)"):
        load_config(toy.write_config(tmp_path), [f"train.classes={value}"])
