"""tools/export.py, from a checkpoint to detections in a process that has no PyTorch."""

import json
import os
import re
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch

import export
from kddetr.checkpoint import load_pretrained
from kddetr.engine import build
from kddetr.export import open_file
from tests.tiny import assert_same_tensors
from tests.tiny_huggingface import REASON
from tests.tools.export_runs import NAMES, exported, leave_run

ROOT = Path(__file__).resolve().parents[2]
# A finder that refuses what the example must not need; it is put in front of the example.
REFUSES = """
import runpy, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("kddetr", "torch", "torchvision", "detectron2", "PIL", "cv2"):
            raise ImportError(name + " is refused here")
sys.meta_path.insert(0, Refuse())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory) -> Path:
    """A run of the detector that PyTorch exports fastest; tests/live exports all families."""
    return leave_run(tmp_path_factory.mktemp("run"), "dab_detr")


def test_onnx_and_the_example_without_this_project(run_folder, tmp_path, capsys):
    pytest.importorskip("onnxruntime", reason="the extra export is not installed")
    pytest.importorskip("onnxscript", reason="the extra export is not installed")
    file = tmp_path / "model.onnx"
    weights = run_folder / "model_final.pth"
    code, text = exported(
        *(capsys, "--weights", str(weights), "--format", "onnx", "--output", str(file)),
        *("--image-size", "64", "80", "--repetitions", "1"),
    )
    assert code == 0, text
    for line in text.splitlines():
        if line.startswith("difference"):
            assert float(line.rpartition(" ")[2]) <= 1e-4, line
    assert text.count("difference from PyTorch") == 2
    assert f"python examples/onnx_detect.py {file} IMAGE" in text
    run, card = open_file(file, "onnx")
    assert {key: json.loads(value) for key, value in card.items()} == {
        "classes": NAMES,
        "resize": None,
        "image_size": [64, 80],
        "size_divisor": 1,
        "pixel_mean": pytest.approx([123.675, 116.28, 103.53]),
        "pixel_std": pytest.approx([58.395, 57.12, 57.375]),
        "kddetr": json.loads(card["kddetr"]),
    }

    image = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    np.save(tmp_path / "image.npy", image)
    command = [sys.executable, "-c", REFUSES, str(ROOT / "examples" / "onnx_detect.py")]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [*command, str(file), "image.npy", "--least-score", "0"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    given = torch.from_numpy(image).permute(2, 0, 1)[None].float(), torch.tensor([[70, 90]])
    boxes, scores, classes = run(*given)
    printed = [line.split() for line in done.stdout.splitlines()]
    assert [words[0] for words in printed] == [NAMES[number] for number in classes[0]]
    numbers = torch.tensor([[float(word) for word in words[1:]] for words in printed])
    torch.testing.assert_close(numbers[:, 0], scores[0], atol=6e-4, rtol=0)
    torch.testing.assert_close(numbers[:, 1:], boxes[0], atol=0.06, rtol=0)


def test_torchscript_with_raw_outputs_and_what_it_is_timed_against(tmp_path, capsys):
    """The proposals of DINO are among the raw outputs, so that the same ones can be compared."""
    weights = str(leave_run(tmp_path, "dino") / "model_final.pth")
    first, second = tmp_path / "a.ts", tmp_path / "b.ts"
    arguments = ("--weights", weights, "--format", "torchscript", "--image-size", "64", "80")
    code, text = exported(capsys, *arguments, "--output", str(first))
    assert code == 0, text
    code, text = exported(
        *(capsys, *arguments, "--output", str(second), "--raw", "--against", str(first)),
        *("--repetitions", "1"),
    )
    assert code == 0, text
    found = re.findall(r"logits (\S+) apart; at the same proposals: (\S+)\n", text)
    found += re.findall(r"of all queries at the same proposals: logits (\S+), boxes (\S+)\n", text)
    assert len(found) == 4 and max(float(n) for pair in found for n in pair) <= 1e-4, text
    assert f"one image of 48 x 80 in {first}: " in text
    run, card = open_file(second, "torchscript")
    assert json.loads(card["classes"]) == NAMES and json.loads(card["image_size"]) == [64, 80]
    out = run(torch.rand(1, 3, 70, 90) * 255, torch.tensor([[70, 90]]))
    assert [tuple(t.shape) for t in out[3:]] == [(1, 6, 3), (1, 6, 4), (1, 6)]


def test_a_model_of_detectron2_as_torchscript_and_not_as_onnx(tmp_path, capsys):
    config = str(ROOT / "configs" / "quickstart" / "faster_rcnn_alone.py")
    torch.manual_seed(0)
    detector = build(export.load_config(config).model)
    weights = tmp_path / "model_final.pth"
    torch.save({"model": detector.stock.state_dict()}, weights)
    arguments = ("--weights", str(weights), "--config-file", config, "--image-size", "128", "96")
    file = tmp_path / "model.ts"
    code, text = exported(
        *(capsys, *arguments, "--format", "torchscript", "--output", str(file)),
        *("--repetitions", "1", "model.stock.roi_heads.box_predictor.test_score_thresh=0"),
    )
    assert code == 0, text
    assert text.count("difference from PyTorch") == 2 and "apart" not in text, text
    code, text = exported(
        capsys, *arguments, "--format", "onnx", "--output", str(tmp_path / "x.onnx")
    )
    assert code == 2 and "take --format torchscript" in text, text
    raw = ("--format", "torchscript", "--raw", "--output", str(file))
    code, text = exported(capsys, *arguments, *raw)
    assert code == 2 and "--raw is for detection transformers" in text, text


def test_a_real_time_detector_as_a_folder_of_its_package(tmp_path, capsys):
    pytest.importorskip("transformers", reason=REASON)
    config = str(ROOT / "configs" / "quickstart" / "rtdetr_alone.py")
    detector = build(export.load_config(config).model)
    weights, folder = tmp_path / "model_final.pth", tmp_path / "folder"
    torch.save({"model": detector.stock.state_dict(), "classes": list("abcdefghij")}, weights)
    arguments = ("--weights", str(weights), "--config-file", config, "--output", str(folder))
    code, text = exported(capsys, *arguments, "--format", "transformers")
    assert code == 0 and f"written: {folder}" in text, text
    assert json.loads((folder / "config.json").read_text())["id2label"]["9"] == "j"
    again = load_pretrained(build(export.load_config(config).model), str(folder))
    assert_same_tensors(again.state_dict(), detector.state_dict())
    teacher = ("--weights", "kddetr://quickstart_teacher.pth", "--format", "transformers")
    code, text = exported(capsys, *teacher)
    assert code == 2 and "take --format onnx" in text, text


def test_the_model_card_stands_for_the_config():
    args = Namespace(weights="kddetr://quickstart_teacher.pth", config_file=None, overrides=[])
    source = export.source_for(args)
    resize = export.resize_of(source)
    assert resize == {"shortest_edge": 128, "max_size": 512}
    assert export.expected_size(resize) == (128, 256)
    card = export.card_of(source, source.classes, resize, (128, 256))
    assert json.loads(card["card"]) == source.card
    args.config_file = str(ROOT / "configs/quickstart/teacher.py")
    args.overrides = ["model.num_classes=9"]
    assert export.source_for(args).model.num_classes == 9


def test_mistakes_are_one_sentence(run_folder, tmp_path, capsys):
    weights = str(run_folder / "model_final.pth")
    bare = tmp_path / "bare.pth"
    torch.save({"model": {"a": torch.ones(1)}}, bare)
    for arguments, words in (
        (("--weights", "nowhere/x.pth"), "nowhere/x.pth does not exist"),
        (("--weights", str(bare)), "name the config"),
        (("--weights", str(run_folder / "x.pth")), "x.pth"),
        (("--weights", weights, "--output", "nowhere/x.onnx"), "does not exist"),
        (("--weights", weights, "--output", "x.pt2"), "ends in .onnx"),
        (("--weights", weights, "--image-size", "3", "64"), "at least 64"),
        (("--weights", weights, "--against", "nowhere/x.ts"), "nowhere/x.ts does not exist"),
        (("--weights", weights, "--against", weights), "is no exported file"),
    ):
        code, text = exported(capsys, *arguments, "--format", "onnx")
        assert code == 2 and words in text, text
