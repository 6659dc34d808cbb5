"""tools/train.py and tools/distill.py on a folder of images: plans, refusals, and short runs."""

import copy
import importlib.util
import json
import shutil
from functools import cache
from pathlib import Path

import pytest
import torch
from engine_toy import write_dataset
from omegaconf import OmegaConf
from PIL import Image

from kddetr import distill
from kddetr.checkpoint import load_pretrained, read_card
from kddetr.engine import build, load_config
from kddetr.engine import program as engine_program
from kddetr.errors import UserError
from kddetr.preflight import PreflightReport
from kddetr.recipes import Recognized, Request, measuring, planning, recognize, seeds
from kddetr.recipes.planning import plan
from kddetr.teachers import Vocabulary

ROOT = Path(__file__).parents[2]
TINY = str(ROOT / "configs/quickstart/alone.py")
BUNDLED = "kddetr://quickstart_teacher.pth"
TRAIN = "toys/annotations/instances_train.json"  # alone, so that a validation split is taken
QUICK = [
    *("train.max_iter=2", "dataloader.train.total_batch_size=2", "train.device=cpu"),
    *("train.watch_period=0", "train.watch_images=0", "train.report=false", "train.eval_period=0"),
]


def program(name: str):
    """The ``main`` of a program in tools/."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def coco_folder(folder: Path, names: list[str]) -> Path:
    """Six toy images as training and as validation split, in COCO's own layout."""
    write_dataset(folder / "train", "front_toy")
    shutil.copytree(folder / "train", folder / "val")
    (folder / "annotations").mkdir()
    for split in ("train", "val"):
        file = folder / split / "toy.json"
        document = json.loads(file.read_text())
        for category, name in zip(document["categories"], names, strict=True):
            category["name"] = name
        (folder / f"annotations/instances_{split}.json").write_text(json.dumps(document))
        file.unlink()
    return folder


@cache
def bundled() -> Recognized:
    """The bundled teacher, recognised once for all tests here."""
    return recognize(BUNDLED)


def recognized(path: str, **options) -> Recognized:
    return copy.deepcopy(bundled()) if path == BUNDLED else recognize(path, **options)


@pytest.fixture
def data(tmp_path, monkeypatch) -> Path:
    """A folder of digits 3, 1 and of a class that the bundled teacher does not know."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(planning, "recognize", recognized)
    monkeypatch.setattr(engine_program, "collect_env_info", str)  # takes longer than the training
    return coco_folder(tmp_path / "toys", ["3", "1", "drone"])


def test_a_teacher_and_its_student_are_trained_continued_and_predict(data, tmp_path, capsys):
    """A folder alone: the teacher first; then its student, with images without labels."""
    program("train")([str(data), "--model", TINY, "--output", "t", "--no-preflight", *QUICK])
    assert read_card("t/model_final.pth")["classes"] == ["3", "1", "drone"]
    words = ["t", str(data), "--student", TINY, "--unlabeled", str(data / "val"), "--output", "s"]
    program("distill")([*words, "--no-preflight", *QUICK])
    printed = capsys.readouterr().out
    assert "6 training and 6 validation images" in printed and "s/config.py" in printed
    program("distill")([*words, "--resume", "train.max_iter=3"])
    assert torch.load("s/model_final.pth")["iteration"] == 2
    cfg = load_config("s/config.py")
    assert cfg.dataloader.train.unlabeled_per_batch == 1
    student = load_pretrained(build(cfg.model.student), "s/model_final.pth")
    assert list(student.trained_classes) == ["3", "1", "drone"]
    with pytest.raises(SystemExit) as stop:
        program("distill")([*words, *QUICK])
    assert stop.value.code == 2 and "adding --resume" in capsys.readouterr().err


def test_from_python_with_images_without_labels_alone(data):
    """Only the points teach; the student has the teacher's classes, by the names that were given,
    and nothing is evaluated.
    """
    quick = dict(text.split("=") for text in QUICK)
    quick["train.max_iter"] = 2  # as a number
    options = {"unlabeled": data / "val", "output": "p", "preflight": False}
    done = distill(BUNDLED, student=TINY, teacher_classes="a,b,c,d,e,f,g,h,i,j", **options, **quick)
    assert done.weights == Path("p/model_final.pth") and done.results == {}
    assert read_card(str(done.weights))["classes"] == list("abcdefghij")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.max_iter=1e3", "max_iter must be of type int, not 1000"),
        ("train.max_iter=many", "max_iter must be of type int"),
        ("dataloader.train.total_batch_size=x", "total_batch_size must be of type int"),
    ],
)
def test_an_override_of_the_wrong_kind_is_a_sentence(data, override, words):
    with pytest.raises(UserError, match=words):
        plan(Request(data=str(data), model=TINY, overrides=[override]), "a command")


def planned(data: Path, *overrides: str, **wishes) -> OmegaConf:
    wishes = {"teacher": BUNDLED, "model": "dino_r18", **wishes}
    return plan(Request(data=str(data), overrides=overrides, **wishes), "a command")


def test_a_plan_is_read_again_as_it_was_made(data, tmp_path):
    """The table shows what is in the config, where what was given comes first."""
    given = ("dataloader.train.total_batch_size=2", "optimizer.lr=0.25", "train.init_checkpoint=")
    made = planned(data, *given)
    file = tmp_path / "config.py"
    file.write_text(made.text)
    again, cfg = load_config(str(file)), made.cfg
    assert OmegaConf.to_yaml(again.train) == OmegaConf.to_yaml(cfg.train)
    shown = {one.name: (one.value, one.why) for one in made.decisions}
    assert shown["learning rate"] == ("0.25", "as given") and shown["batch"][0].startswith("2")
    assert shown["iterations"][0] == str(cfg.train.max_iter)
    assert shown["starts from"] == ("nothing", "as given")
    assert cfg.lr_multiplier.milestones == [11 / 12]
    assert made.image_size == (128, 213)  # as the teacher's card says
    # A class that the teacher lacks is learned from labels.
    teacher = build(cfg.model.teacher)
    assert isinstance(teacher, Vocabulary) and teacher.wanted == ["3", "1", "drone"]
    assert teacher.places.tolist() == [0, 1] and teacher.rows.tolist() == [3, 1]
    assert "learned from labels alone: 1 (drone)" in shown["classes"][0]
    assert "query_placement" not in cfg.model and cfg.model.student.num_classes == 3


def test_validation_images_among_those_without_labels_are_found(data, tmp_path):
    """They themselves, and copies of them under other names."""
    more = tmp_path / "more/deep"
    shutil.copytree(data / "train", more)
    made = planned(data, model=TINY, unlabeled=str(tmp_path / "more"))
    (finding,) = made.findings
    assert finding.count == 6 and "6 of the 6 validation images" in finding.sentence
    same = planned(data, model=TINY, unlabeled=str(data / "val"))
    assert [one.sentence[:6] for one in same.findings] == ["6 of t"]
    for file in more.iterdir():
        Image.open(file).convert("L").save(file)
    assert not planned(data, model=TINY, unlabeled=str(tmp_path / "more")).findings


def test_a_region_detector_is_asked_at_the_answers(data):
    assert "query_placement" in planned(data, model="retinanet_r50").cfg.model


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["none.pth", "toys", "--student", "dino_r18"], "none.pth does not exist"),
        ([BUNDLED, "nothing", "--student", "dino_r18"], "There is no folder .*nothing"),
        ([BUNDLED, "toys", "--student", "dyno_r18"], "did you mean dino_r18"),
        ([BUNDLED, "toys"], "Name a student with --student NAME"),
        ([BUNDLED, "--student", "dino_r18"], "no images to train on"),
        ([BUNDLED, "toys", "--student", "deformable_detr_r18"], "learned embeddings, and those"),
        ([BUNDLED, "toys", "--student", "dino_r18", "train.max_itr=3"], "did you mean max_iter"),
        ([BUNDLED, "toys", "--student", "dino_r18", "--same-class", "drone"], "is no pair"),
        (
            [BUNDLED, "toys", "--student", TINY, "--unlabeled", "toys/val", QUICK[1][:-1] + "1"],
            "has no room for one without labels",
        ),
        (
            [BUNDLED, TRAIN, "--student", TINY, "--output", "toys/val/toy_1.png/o"],
            "train.output_dir=toys/val/toy_1.png/o cannot be written to",
        ),
        (
            ["toys/train/toy_1.png", "toys", "--student", "dino_r18"],
            "is damaged|is a picture|image",
        ),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(data, capsys, arguments, words):
    with pytest.raises(SystemExit) as stop:
        program("distill")([*arguments, "--dry-run"])
    lines = capsys.readouterr().err.strip().splitlines()
    assert stop.value.code == 2 and len(lines) == 1
    assert lines[0].startswith("error: ")
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(lines[0])


def test_an_edited_config_is_not_replaced(data, capsys):
    command = [str(data), "--model", TINY, "--dry-run", "train.output_dir=o"]
    program("train")(command)
    program("train")([*command, "train.seed=1"])  # as it was written, so it may change
    file = Path("o/config.py")
    file.write_text(file.read_text().replace('"seed": 1', '"seed": 2'))
    shutil.rmtree(data / "val")
    (data / "annotations/instances_val.json").unlink()
    with pytest.raises(SystemExit):
        program("train")(command)
    assert "was edited" in capsys.readouterr().err and '"seed": 2' in file.read_text()
    assert not Path("o/data").exists()  # its labels stay what they were, too
    program("train")([*command, "--resume"])  # looks where the override says
    with pytest.raises(SystemExit):
        program("train")([*command[:-1], "--output", "other", "--resume"])
    assert "other/config.py does not exist" in capsys.readouterr().err


def test_all_students_are_listed(capsys):
    program("distill")(["x.pth", "--student", "list"])
    assert "dino_r18 " in capsys.readouterr().out


def test_a_published_file_starts_a_training_of_the_same_detector(data, tmp_path):
    """Its settings are taken from it, and its heads are made anew for the data's classes."""
    made = plan(Request(data=str(data), weights=BUNDLED), "a command")
    assert made.cfg.model.num_classes == 3 and made.cfg.train.init_checkpoint == BUNDLED
    assert "its class heads are made anew" in next(
        one.why for one in made.decisions if one.name == "starts from"
    )
    with pytest.raises(UserError, match="Name a detector with --model"):
        plan(Request(data=str(data)), "a command")


def test_a_refusal_of_the_preflight_comes_before_the_training(data, monkeypatch, capsys):
    started = []
    report = PreflightReport(rows=[("Teacher", "AP 0.0")], warnings=[], refusals=["It is blind."])
    monkeypatch.setattr(measuring, "run_preflight", lambda *_, **__: report)
    monkeypatch.setattr(engine_program, "start", lambda args, **_: started.append(args))
    words = [BUNDLED, str(data), "--student", TINY, "--output", "o", *QUICK]
    with pytest.raises(SystemExit) as stop:
        program("distill")(words)
    said = capsys.readouterr()
    assert stop.value.code == 2 and said.err == "error: It is blind.\n" and not started
    assert "AP 0.0" in said.out and Path("o/data.html").is_file()
    program("distill")([*words, "--force"])
    program("distill")([*words, "--fast-dev-run", "--seeds", "2"])  # without measuring, and once
    assert [one.fast_dev_run for one in started] == [False, True]
    assert started[0].config_file == "o/config.py"


def test_the_students_are_listed_without_a_teacher(capsys):
    program("distill")(["--student", "list"])
    assert {"dino_r18 ", "rtdetr_v2_r18 ", "dfine_s "} <= {
        line[: line.index(" ") + 1] for line in capsys.readouterr().out.splitlines()
    }
    with pytest.raises(SystemExit, match="2"):
        program("distill")(["--student", "dino_r18"])
    assert "Name the teacher first" in capsys.readouterr().err


def test_seeds_are_trained_with_and_without_the_teacher(data, monkeypatch):
    """Alone means whole batches of labelled images, and the same seed."""
    ran = []
    monkeypatch.setattr(seeds, "train_apart", lambda *arguments: ran.append(arguments))
    monkeypatch.setattr(
        seeds, "train_pairs", lambda ways, numbers, *, train, **_: [train(w, 5) for w in ways]
    )
    for name in ("comparison_text", "write_comparison"):
        monkeypatch.setattr(seeds, name, lambda *_: "")
    words = [BUNDLED, str(data), "--student", TINY, "--output", "o", "--no-preflight"]
    program("distill")([*words, "--unlabeled", str(data / "val"), "--seeds", "2", *QUICK])
    alone = ["model.weight=0", "dataloader.train.unlabeled_per_batch=0"]
    assert [(str(run[1]), run[2], run[3]) for run in ran] == [
        ("o/alone_seed5", 5, alone),
        ("o/distilled_seed5", 5, []),
    ]
