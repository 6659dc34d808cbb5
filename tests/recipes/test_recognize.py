"""A detector's file says what is in it, and the node that is recognised loads it completely."""

import shutil
from pathlib import Path

import pytest
import torch
import torchvision

from kddetr.checkpoint import asset, load_pretrained
from kddetr.engine import build
from kddetr.errors import CheckpointError, ConfigError, UsageError
from kddetr.recipes import recognize, students
from tests.checkpoint.test_published_names import needs, published_file
from tests.tiny import FAMILIES, tiny_batch, tiny_detector
from tests.tiny_huggingface import tiny_huggingface

ASKED = {"deformable_detr_two_stage": ["num_queries=6"]}


def saved(state: dict, path: Path, **more) -> str:
    torch.save({"model": state, **more}, path)
    return str(path)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_detector_is_rebuilt_from_its_weights(family, tmp_path):
    """What no shape shows is asked for, in one sentence; then the outputs are the same."""
    model = tiny_detector(family).eval()
    file = saved(
        model.state_dict(), tmp_path / "x.pth", settings=model.settings, classes=["a", "b"]
    )
    settings = [*(["groups=4"] if family != "dab_detr" else []), *ASKED.get(family, [])]
    if settings:
        with pytest.raises(UsageError, match=r"do not show groups.* teacher\.groups=32"):
            recognize(file)
    found = recognize(file, settings=[*settings, "num_detections=10"])
    rebuilt = build(found.model).eval()
    rebuilt.load_state_dict(model.state_dict())
    with torch.no_grad():
        for mine, other in zip(model(tiny_batch()), rebuilt(tiny_batch()), strict=True):
            a, b = mine["instances"], other["instances"]
            torch.testing.assert_close(a.pred_boxes.tensor, b.pred_boxes.tensor)
            torch.testing.assert_close(a.scores, b.scores)
    assert found.classes == ("a", "b") and found.num_classes == 3
    assert "6 queries" in found.words


@pytest.mark.parametrize(
    ("family", "author", "words"),
    [
        ("dab_detr_r50", "huggingface", "DAB-DETR, ResNet-50, 300 queries"),
        ("dino_4scale_r50", "official", "DINO, ResNet-50, 900 queries"),
    ],
)
def test_a_published_file_is_known(family, author, words, tmp_path):
    file = saved(published_file(family, author), tmp_path / "x.pth")
    found = recognize(file)
    assert found.words.startswith(words)
    assert found.num_classes == len(found.classes) == 80 and found.classes[0] == "person"
    settings = {key: found.model[key] for key in ("temperature", "offset", "eps")}
    assert settings == needs(family, author)


def test_weights_that_may_need_either_settings(tmp_path):
    state = published_file("dino_4scale_r50", "detrex")
    words = r"teacher\.temperature=10000 teacher\.offset=-0\.5 for 12ep or"
    with pytest.raises(UsageError, match=words):
        recognize(saved(state, tmp_path / "x.pth"))
    file = saved(state, tmp_path / "dino_24ep.pth")
    assert recognize(file).model.temperature == 20


def test_the_bundled_teacher_has_a_card():
    found = recognize("kddetr://quickstart_teacher.pth")
    assert found.card and found.classes == tuple("0123456789")
    assert recognize("kddetr://quickstart_teacher.pth", settings=["temperature=20"]) is not None


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({"a.weight": torch.ones(2)}, "no detector that is known here: its 1 weights are a"),
        ({"roi_heads.fc.weight": torch.ones(2)}, "an R-CNN of Detectron2.*--teacher-config"),
        (torchvision.models.resnet18().state_dict(), "an ImageNet backbone"),
    ],
    ids=["unknown", "rcnn", "backbone"],
)
def test_another_file_is_refused_in_a_sentence(state, words, tmp_path):
    with pytest.raises(CheckpointError, match=f"looks like {words}") as error:
        recognize(saved(state, tmp_path / "x.pth"))
    assert "DAB-DETR" in str(error.value) and "\n" not in str(error.value)


def test_a_missing_file_and_a_folder_of_a_run(tmp_path):
    with pytest.raises(CheckpointError, match="does not exist"):
        recognize(str(tmp_path / "none.pth"))
    model = tiny_detector("dab_detr")
    saved(model.state_dict(), tmp_path / "model_final.pth", settings=model.settings)
    found = recognize(str(tmp_path))
    assert found.file.endswith("model_final.pth") and "is taken" in found.notes[0]
    with pytest.raises(ConfigError, match=r"Unknown key teacher\.temprature: teacher has no"):
        recognize(str(tmp_path), settings=["temprature=20"])  # as it was written


def test_a_config_describes_a_file_that_does_not_say_enough(tmp_path):
    """Without its card, the bundled teacher has no settings."""
    file = str(shutil.copy(asset("kddetr://quickstart_teacher.pth"), tmp_path / "bare.pth"))
    with pytest.raises(UsageError, match="do not show temperature, offset, eps, num_heads, groups"):
        recognize(file)
    config = Path(__file__).parents[2] / "configs/quickstart/distilled.py"
    with pytest.raises(CheckpointError, match="embed_dim=96 and the model 64"):
        recognize(file, config=str(config))  # of a distillation the student is meant
    found = recognize(file, config=str(config.with_name("teacher.py")))
    assert found.model.groups == 16 and found.num_classes == 10 and not found.classes


def test_a_real_time_detector_of_the_package_by_folder_and_by_name(tmp_path, monkeypatch):
    model = tiny_huggingface(num_detections=300).eval()
    hub = pytest.importorskip("huggingface_hub")
    model.save(str(tmp_path / "folder"), ["a", "b", "c"])
    monkeypatch.setattr(hub, "snapshot_download", lambda *_, **__: tmp_path / "folder")
    for name in (str(tmp_path / "folder"), "hf://owner/name"):
        found = recognize(name)
        assert found.classes == ("a", "b", "c") and found.file == name
        teacher = load_pretrained(build(found.model), name)
        with torch.no_grad():
            mine, its = (d(tiny_batch())[0]["instances"] for d in (model, teacher))
        assert torch.equal(mine.scores, its.scores)
    assert {"rtdetr_v2_r18", "dfine_s"} <= students().keys()
