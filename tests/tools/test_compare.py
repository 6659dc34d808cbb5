"""The program compare.py: a table, a file and a picture of two checkpoints; its errors."""

import json
from argparse import Namespace

import pytest
import torch
from detectron2.config import LazyCall as L
from omegaconf import OmegaConf
from PIL import Image
from torch import nn

import compare
from compare import detector_a, main, pair
from kddetr import KDDETR
from kddetr.checkpoint import WrapperState, load_pretrained
from kddetr.engine import build, load_config
from kddetr.errors import UsageError
from kddetr.losses import WeightedMeanLoss
from kddetr.points import SpecificSampler
from tests.tiny import assert_same_tensors, tiny_detector

DETECTOR = "configs/quickstart/alone.py"
PAIR = "configs/quickstart/distilled.py"
DATA = ["dataloader.test.dataset.names=tool_compare", "train.device=cpu"]
LOGGING = '''
from configs.quickstart.distilled import dataloader, lr_multiplier, model, optimizer, train
from detectron2.config import LazyCall as L
from detectron2.utils.events import get_event_storage


class Logged:
    """A sampler or a query placement that logs a value."""

    def __init__(self, *, part=None):
        self.part = part

    def __call__(self, *found):
        get_event_storage().put_scalar("my/value", 1.0)
        return self.part(*found) if self.part else found[0].boxes_only()


model.sampler = L(Logged)(part=model.sampler)
model.query_placement = L(Logged)()
'''


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


@pytest.fixture(autouse=True)
def drawn(monkeypatch) -> list:
    """What would be drawn; one test draws the picture, which takes longer than all the rest."""
    pictures = []
    monkeypatch.setattr(compare, "draw_differences", lambda *one: pictures.append(one) or "")
    return pictures


def run(tmp_path, *arguments: str, images: int = 2) -> dict:
    main([*arguments, *DATA, "--output", str(tmp_path), "--images", str(images)])
    return json.loads((tmp_path / "gap.json").read_text())


def test_two_checkpoints_of_a_detector(checkpoints, tmp_path, capsys, monkeypatch):
    monkeypatch.undo()  # draw the picture
    found = run(tmp_path, "--config-file", DETECTOR, *checkpoints, images=1)
    assert set(found) == {"general", "specific"} and found["general"]["kl"] > 0
    assert capsys.readouterr().out.count("\n| ") >= 3
    with Image.open(tmp_path / "differences.png") as picture:
        assert min(picture.size) > 300


def test_a_checkpoint_beside_itself_has_no_gap(checkpoints, tmp_path):
    same = [checkpoints[0]] * 2
    found = run(tmp_path, "--config-file", DETECTOR, "--config-of-a", DETECTOR, *same)
    for figures in found.values():
        assert figures["agreement"] == 1 and figures["kl"] == pytest.approx(0, abs=1e-5)


def test_the_teacher_of_a_pair_by_its_word_and_by_its_file(checkpoints, tmp_path):
    """The second config is the same, but its sampler and its placement log values."""
    (tmp_path / "own.py").write_text(LOGGING)
    own, file = str(tmp_path / "own.py"), "kddetr://quickstart_teacher.pth"
    found = run(tmp_path, "--config-file", PAIR, "teacher", checkpoints[0])
    named = run(tmp_path, "--config-file", own, file, checkpoints[0])
    assert set(found) == set(named) == {"general", "specific"}
    for group, figures in found.items():
        assert named[group] == pytest.approx(figures)


def test_without_points_in_the_config_the_default_ones_are_compared(
    checkpoints, tmp_path, capsys, drawn
):
    config = "configs/evidence/pkd_encoder.py"
    found = run(tmp_path, "--config-file", config, "teacher", checkpoints[0])
    assert set(found) == {"general", "specific"} and len(drawn) == 1
    assert "300 random boxes" in capsys.readouterr().out


class LossWithWeights(nn.Module):
    """A loss with a layer of its own, which is saved beside the student."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, student, teacher, points):
        return {}


def test_the_projection_that_b_was_trained_with_is_loaded_and_nothing_of_its_loss(tmp_path):
    a, b = (str(tmp_path / f"{name}.pth") for name in "ab")
    torch.save({"model": tiny_detector("dino", embed_dim=32).state_dict()}, a)
    model = L(KDDETR)(
        student=L(tiny_detector)(family="dino"),
        teacher=L(load_pretrained)(
            model=L(tiny_detector)(family="dino", embed_dim=32), checkpoint=a
        ),
        sampler=L(SpecificSampler)(),
        loss=L(LossWithWeights)(),
    )
    cfg = OmegaConf.create({"model": model}, flags={"allow_objects": True})
    trained = build(cfg.model)
    wrapper = WrapperState(trained).state_dict()
    assert {key.split(".")[0] for key in wrapper} == {"projection", "loss"}
    torch.save({"model": trained.student.state_dict(), "wrapper": wrapper}, b)
    found = pair(cfg, Namespace(a="teacher", b=b, config_of_a=None))
    assert isinstance(found.loss, WeightedMeanLoss)
    assert_same_tensors(found.projection.state_dict(), trained.projection.state_dict())


def test_a_teacher_of_several_checkpoints_is_not_replaced_by_one():
    teachers = [L(load_pretrained)(model=None, checkpoint=f"{i}.pth") for i in range(2)]
    cfg = OmegaConf.create({"model": {"teacher": L(nn.ModuleList)(modules=teachers)}})
    with pytest.raises(UsageError, match=r"modules\.0\.checkpoint, modules\.1\.checkpoint"):
        detector_a(cfg, Namespace(a="other.pth", config_of_a=None), [])
    assert cfg.model.teacher.modules[0].checkpoint == "0.pth"


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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config-file", DETECTOR], "The config has no teacher: name A's checkpoint"),
        (["--config-file", PAIR, "--config-of-a", DETECTOR], "with --config-of-a, name A's file"),
    ],
)
def test_where_the_word_teacher_means_nothing_a_needs_a_file(
    checkpoints, arguments, message, capsys
):
    with pytest.raises(SystemExit) as stopped:
        main([*arguments, "teacher", checkpoints[0], *DATA])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
