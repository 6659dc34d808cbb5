"""The program benchmark.py: its figures follow their definitions, whatever the measured times."""

import json
import sys
from pathlib import Path

import pytest
import torch
from engine_toy import write_dataset

from benchmark import exit_when_out_of_memory, main

SMALL = ("--device", "cpu", "--image-size", "64", "--repeats", "2", "--warmup", "0")
KINDS = ("teacher_encode", "teacher_decode", "teacher", "plain_step", "distillation_step")
SPREADS = {*KINDS, "floor", "above_floor", "points", "ideal"}
PARTS = {
    *("teacher_encode", "teacher_decode", "student_points_forward", "student_points_backward"),
    *("loss", "matching", "rest"),
}


def benchmark(*words: str) -> None:
    with pytest.MonkeyPatch.context() as patch, exit_when_out_of_memory():
        patch.setattr(sys, "argv", ["benchmark.py", "--config-file", *words])
        main()


@pytest.fixture(scope="module")
def of_a_pair(tmp_path_factory) -> dict:
    """All figures of a small pair whose teacher is bundled."""
    folder = tmp_path_factory.mktemp("figures")
    files = ("--json", str(folder / "figures.json"), "--profile", str(folder / "trace.json"))
    benchmark("configs/quickstart/distilled.py", *SMALL, *files)
    assert json.loads((folder / "trace.json").read_text())["traceEvents"]
    return json.loads((folder / "figures.json").read_text())


def test_every_figure_of_a_pair_is_there(of_a_pair):
    assert set(of_a_pair["seconds"]) == SPREADS
    for spread in of_a_pair["seconds"].values():
        assert len(spread["values"]) == 2
        assert spread["min"] <= spread["median"] <= spread["max"]
    ratios = {f"step_over_{name}" for name in ("plain", "floor", "ideal")}
    ratios |= {"peak_over_plain", "peak_over_bound"}
    assert set(of_a_pair["ratios"]) == ratios
    kinds = {"teacher", "plain_step", "distillation_step"}
    assert set(of_a_pair["operations"]) == set(of_a_pair["memory"]) == kinds
    assert set(of_a_pair["shares"]["distillation_step"]) == PARTS
    assert set(of_a_pair["images_per_second"]) == {"plain_step", "distillation_step"}
    alone = of_a_pair["student_alone"]
    assert alone["parameters"] > 0 and alone["operations"] > 0
    for size in ("batch_1", "batch_8"):
        assert 0 < alone[size]["preprocessing"] + alone[size]["postprocessing"] < 1
    where = of_a_pair["environment"]
    assert where["threads"] == torch.get_num_threads() and where["torch"] == torch.__version__


def test_floor_and_ideal_follow_their_definitions(of_a_pair):
    seconds = {name: spread["values"] for name, spread in of_a_pair["seconds"].items()}
    operations, ratios = of_a_pair["operations"], of_a_pair["ratios"]
    more = operations["distillation_step"] / (operations["teacher"] + operations["plain_step"])
    assert more > 1
    for i in range(2):
        teacher = seconds["teacher_encode"][i] + seconds["teacher_decode"][i]
        floor = teacher + seconds["plain_step"][i]
        step = seconds["distillation_step"][i]
        assert seconds["floor"][i] == pytest.approx(floor, rel=1e-3)
        assert seconds["ideal"][i] == pytest.approx(floor * more, rel=1e-3)
        assert ratios["step_over_floor"]["values"][i] == pytest.approx(step / floor, rel=1e-3)
        expected = step / (floor * more)
        assert ratios["step_over_ideal"]["values"][i] == pytest.approx(expected, rel=1e-3)


def test_parts_of_a_step_add_up_to_the_step(of_a_pair):
    for shares in of_a_pair["shares"].values():
        assert sum(shares.values()) == pytest.approx(1)


def test_peak_over_plain_follows_its_definition(of_a_pair):
    peaks = {name: sizes["peak"] for name, sizes in of_a_pair["memory"].items()}
    rest = peaks["distillation_step"] - peaks["teacher"]
    assert of_a_pair["ratios"]["peak_over_plain"] == rest / peaks["plain_step"]


def test_a_plain_detector_has_no_figures_of_a_teacher(tmp_path: Path, capsys):
    file = tmp_path / "figures.json"
    parts = ("--only", "steps,operations,shares,memory")
    benchmark("configs/quickstart/faster_rcnn_alone.py", *SMALL, *parts, "--json", str(file))
    figures = json.loads(file.read_text())
    assert set(figures["seconds"]) == set(figures["operations"]) == {"plain_step"}
    assert set(figures["shares"]) == set(figures["memory"]) == {"plain_step"}
    assert figures["ratios"] == {} and figures["teacher"] is None
    assert "student_alone" not in figures
    said = capsys.readouterr().out
    assert "teacher" not in said and "The student's weights are random." in said
    assert "data loading" in said and "not measured" in said


def test_a_fixed_teacher_leaves_the_cost_of_the_points(tmp_path: Path):
    file = tmp_path / "figures.json"
    words = ("--fixed-teacher", "--only", "steps,operations", "--json", str(file))
    benchmark("configs/quickstart/faster_rcnn_distilled.py", *SMALL, *words)
    figures = json.loads(file.read_text())
    assert figures["teacher"] == "FixedAnswers" and figures["operations"]["teacher"] == 0
    assert figures["operations"]["distillation_step"] > figures["operations"]["plain_step"]


def test_a_teacher_in_half_precision_and_compiled_modules_are_measured(tmp_path: Path, monkeypatch):
    compiled = []
    monkeypatch.setattr(
        "benchmarking.subject.compile_detectors", lambda wanted, model: compiled.append(wanted)
    )
    file = tmp_path / "figures.json"
    words = ("--half-teacher", "--only", "steps,operations", "--json", str(file))
    benchmark("configs/quickstart/distilled.py", *SMALL, *words, "--", "train.compile.student=true")
    figures = json.loads(file.read_text())
    assert figures["teacher"] == "HalfPrecision" and figures["operations"]["teacher"] == 0
    assert compiled == [{"student": True, "teacher": False}]


def test_own_images_are_loaded_and_resized(tmp_path: Path):
    name, file = write_dataset(tmp_path / "data"), tmp_path / "figures.json"
    data = [f"dataloader.train.{kind}.names={name}" for kind in ("dataset", "unlabeled")]
    words = ("--own-images", "--only", "steps", "--json", str(file), "--", *data)
    benchmark("configs/quickstart/alone.py", *SMALL, *words)
    figures = json.loads(file.read_text())
    assert "data_loading" in figures["seconds"]
    assert figures["images"] == "images of the config's own loader, resized to 64 x 64"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--batch-size", "0"], "argument --batch-size: 0 is less than 1"),
        (["--batch-size", "2x"], "argument --batch-size: 2x is not a whole number"),
        (["--image-size", "1", "64"], "argument --image-size: 1 is less than 32"),
        (["--image-size", "64", "64", "64"], "--image-size takes one number"),
        (["--image-size", "64", "train.seed=1"], "put -- before the overrides"),
        (["--only", "step"], "'step' is none of steps, shares"),
        (["--device", "tpu"], "must be auto, cpu or cuda, not 'tpu'"),
        (["--json", "no/such/folder/x.json"], "there is no folder no/such/folder, make it."),
        (["--profile", "configs"], "--profile configs is a folder: name a file in it."),
        (["--fixed-teacher"], "--fixed-teacher and --half-teacher need a config with a teacher"),
        (["--own-images", "--mixed-sizes"], "--mixed-sizes is for random images"),
        (["--own-images", "--", "dataloader=null"], "but the config has no dataloader.train."),
        (
            ["--device", "cpu", "train.amp={enabled:true,dtype:float16}"],
            "train.amp.dtype=float16 needs CUDA",
        ),
        (["--config-file", "configs/common/sgd.py"], "The config has no model"),
    ],
)
def test_wrong_arguments_are_a_sentence(words, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        benchmark("configs/quickstart/alone.py", *words)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB. GPU 0 has"),
            "error: CUDA out of memory: use fewer or smaller images.\n",
        ),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9"),
            "error: There is not enough memory: use fewer or smaller images.\n",
        ),
    ],
)
def test_lack_of_memory_is_reported_in_a_sentence(error, message, capsys):
    with pytest.raises(SystemExit) as stopped, exit_when_out_of_memory():
        raise error
    assert stopped.value.code == 2
    assert capsys.readouterr().err == message
