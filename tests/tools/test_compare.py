"""The program compare.py: a table, a file and a picture of two checkpoints; its errors."""

import json

import pytest
import torch
from PIL import Image

from compare import main
from kddetr.engine import build, load_config

DETECTOR = "configs/quickstart/alone.py"
PAIR = "configs/quickstart/distilled.py"
DATA = ["dataloader.test.dataset.names=tool_compare", "train.device=cpu"]


@pytest.fixture(scope="module", autouse=True)
def data(tmp_path_factory):
    """Two test images with the ten classes of the digits."""
    import numpy as np
    from detectron2.data.datasets import register_coco_instances

    folder = tmp_path_factory.mktemp("compare")
    rng = np.random.default_rng(0)
    listed = []
    for i in range(2):
        pixels = rng.integers(0, 255, (64, 64, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        listed.append({"id": i, "file_name": f"{i}.png", "height": 64, "width": 64})
    box = {"bbox": [8, 8, 20, 20], "area": 400, "iscrowd": 0}
    annotations = [{"id": 1, "image_id": 0, "category_id": 1, **box}]
    categories = [{"id": i, "name": str(i)} for i in range(10)]
    document = {"images": listed, "annotations": annotations, "categories": categories}
    (folder / "all.json").write_text(json.dumps(document))
    register_coco_instances("tool_compare", {}, str(folder / "all.json"), str(folder))


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory) -> list[str]:
    """Two students with random weights."""
    folder, files = tmp_path_factory.mktemp("weights"), []
    for seed in (0, 1):
        torch.manual_seed(seed)
        files.append(str(folder / f"{seed}.pth"))
        torch.save({"model": build(load_config(DETECTOR, []).model).state_dict()}, files[-1])
    return files


def run(tmp_path, *arguments: str) -> dict:
    main([*arguments, *DATA, "--output", str(tmp_path), "--images", "2"])
    return json.loads((tmp_path / "gap.json").read_text())


def test_two_checkpoints_of_a_detector(checkpoints, tmp_path, capsys):
    found = run(tmp_path, "--config-file", DETECTOR, *checkpoints)
    assert set(found) == {"general", "specific"} and found["general"]["kl"] > 0
    assert capsys.readouterr().out.count("\n| ") >= 3
    with Image.open(tmp_path / "differences.png") as picture:
        assert min(picture.size) > 300


def test_a_checkpoint_beside_itself_has_no_gap(checkpoints, tmp_path):
    same = [checkpoints[0]] * 2
    found = run(tmp_path, "--config-file", DETECTOR, "--config-of-a", DETECTOR, *same)
    for figures in found.values():
        assert figures["agreement"] == 1 and figures["kl"] == pytest.approx(0, abs=1e-5)


def test_the_teacher_of_a_pair(checkpoints, tmp_path):
    found = run(tmp_path, "--config-file", PAIR, "teacher", checkpoints[0])
    assert set(found) == {"general", "specific"}
    named = run(tmp_path, "--config-file", PAIR, "kddetr://quickstart_teacher.pth", checkpoints[0])
    for group, figures in found.items():
        assert named[group] == pytest.approx(figures)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config-file", DETECTOR, "teacher", "b.pth"], "b.pth"),
        (["--config-file", PAIR, "nowhere.pth", "b.pth"], "b.pth"),
        (["--config-file", DETECTOR, "a.pth", "b.pth", "dataloader.test=null"], "no test data"),
    ],
)
def test_an_error_is_a_sentence(arguments, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error


def test_without_a_teacher_a_needs_a_file(checkpoints, capsys):
    with pytest.raises(SystemExit):
        main(["--config-file", DETECTOR, "teacher", checkpoints[0], *DATA])
    assert "name A's checkpoint" in capsys.readouterr().err
