"""A distilled Detectron2 model is an ordinary one: stock Detectron2 loads its file and agrees."""

import os
import subprocess
import sys
from pathlib import Path

import detectron2
import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.utils.events import EventStorage

from kddetr import KDDETR
from kddetr.checkpoint import Checkpointer, CheckpointError, WrapperState, load_pretrained
from kddetr.detectors import RegionDetector
from kddetr.losses import WeightedMeanLoss
from kddetr.points import GeneralSampler, JointSampler, SpecificSampler
from tests.checkpoint.stock_side import CLASSES, NAMES, stock_model
from tests.tiny import CLASSES as TEACHERS_CLASSES
from tests.tiny import tiny_batch, tiny_detector

SIZES = ((64, 80), (64, 80))


def distilled(name: str) -> tuple[KDDETR, torch.optim.Optimizer]:
    """A tiny pair after two steps, in evaluation mode."""
    assert CLASSES == TEACHERS_CLASSES
    torch.manual_seed(0)
    model = KDDETR(
        student=RegionDetector(stock_model(name)),
        teacher=tiny_detector("dino", seed=2),
        sampler=JointSampler([GeneralSampler(count=4), SpecificSampler()]),
        loss=WeightedMeanLoss(),
    ).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    with EventStorage():
        for _ in range(2):
            optimizer.zero_grad()
            losses = model(tiny_batch(SIZES))
            assert any("kd_" in loss for loss in losses)
            sum(losses.values()).backward()
            optimizer.step()
    return model.eval(), optimizer


@pytest.fixture(scope="module")
def round_trip(tmp_path_factory) -> Path:
    """A folder with what was saved here, after stock Detectron2 has loaded and saved it again."""
    folder = tmp_path_factory.mktemp("round_trip")
    x = tiny_batch(SIZES[:1], boxes=(None,), seed=5)[0]
    torch.save(x["image"].flip(0), folder / "image.pt")
    for name in NAMES:
        model, optimizer = distilled(name)
        Checkpointer(model, str(folder / "weights")).save_weights(name)
        wrapper = WrapperState(model)
        Checkpointer(model, str(folder), optimizer=optimizer, wrapper=wrapper).save(name)
        with torch.no_grad():
            found = model([x])[0]["instances"]
        expected = {
            "boxes": found.pred_boxes.tensor,
            "scores": found.scores,
            "classes": found.pred_classes,
        }
        torch.save(expected, folder / f"{name}.expected.pt")
    run_stock(folder)
    return folder


def run_stock(folder: Path) -> None:
    """Run the script in a folder where this project is not, with the same Detectron2."""
    env = os.environ | {"PYTHONPATH": str(Path(detectron2.__file__).parents[1])}
    script = Path(__file__).with_name("stock_side.py")
    command = [sys.executable, str(script), str(folder)]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith(f"the same {' '.join(NAMES)}")


@pytest.mark.slow
def test_stock_detectron2_finds_the_same_without_this_project(round_trip):
    """See stock_side.py: for each model all weights load, and the detections agree."""
    assert sorted(p.stem for p in (round_trip / "stock").glob("*.pth")) == sorted(NAMES)


def test_the_detections_are_not_those_of_any_model(round_trip):
    """The check above can fail: an untrained model of the same seed finds something else."""
    torch.manual_seed(0)
    model = stock_model("specific").eval()
    image = torch.load(round_trip / "image.pt")
    with torch.no_grad():
        found = model([{"image": image, "height": 64, "width": 80}])[0]["instances"]
    assert not torch.equal(found.scores, torch.load(round_trip / "specific.expected.pt")["scores"])


@pytest.mark.parametrize("name", NAMES)
def test_the_weights_are_what_detectron2_writes_byte_for_byte(round_trip, name):
    ours = (round_trip / "weights" / f"{name}.pth").read_bytes()
    assert ours == (round_trip / "stock" / f"{name}.pth").read_bytes()


@pytest.mark.parametrize("name", NAMES)
def test_a_training_checkpoint_holds_the_same_model(round_trip, name):
    full, stock = (torch.load(f / f"{name}.pth") for f in (round_trip, round_trip / "stock"))
    assert full.keys() == {"model", "optimizer", "wrapper"} and stock.keys() == {"model"}
    assert full["wrapper"] == {}
    ours, theirs = full["model"], stock["model"]
    assert list(ours) == list(theirs)
    assert ours._metadata == theirs._metadata
    for key, value in ours.items():
        assert value.dtype == theirs[key].dtype and value.shape == theirs[key].shape
        assert value.contiguous().numpy().tobytes() == theirs[key].contiguous().numpy().tobytes()


@pytest.mark.parametrize("name", NAMES)
def test_it_loads_as_a_frozen_teacher(round_trip, name):
    """The same predictions from this project's file and from stock Detectron2's."""
    boxes = torch.rand(1, 5, 4, generator=torch.Generator().manual_seed(0)) * 0.5 + 0.2
    source = RegionDetector(stock_model(name)).eval()
    DetectionCheckpointer(source.stock).load(str(round_trip / "stock" / f"{name}.pth"))
    for file in (round_trip / f"{name}.pth", round_trip / "stock" / f"{name}.pth"):
        torch.manual_seed(1)
        teacher = load_pretrained(RegionDetector(stock_model(name)), str(file))
        assert not teacher.training and not any(p.requires_grad for p in teacher.parameters())
        with torch.no_grad():
            found, expected = (
                d.decode(m := d.encode(tiny_batch(SIZES)), d.make_queries(m, boxes))
                for d in (teacher, source)
            )
        # One of the two requires gradients, which may choose other kernels.
        torch.testing.assert_close(found.logits, expected.logits)
        torch.testing.assert_close(found.boxes, expected.boxes)


def test_a_teacher_of_another_kind_is_refused_whole(round_trip):
    teacher = RegionDetector(stock_model("cascade"))
    before = {key: value.clone() for key, value in teacher.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"missing .*box_predictor\.0"):
        load_pretrained(teacher, str(round_trip / "specific.pth"))
    assert all(torch.equal(value, before[key]) for key, value in teacher.state_dict().items())
    with pytest.raises(CheckpointError, match="of another shape"):
        load_pretrained(RegionDetector(stock_model("agnostic")), str(round_trip / "specific.pth"))
